"""The rule that chooses a Triton kernel, and what the kernels become for cards that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_cases import DEVICE, SINGLE, computed_on, error, truth

from micropref.kernels import mixture_nll_and_grad
from micropref.kernels._launches import LAUNCHES, Shape, chosen, launch_for, use_launch

ROOT = Path(__file__).parents[1]

# Most registers, bytes spilled and instructions for each number of X; and the tensor core instructions.
COMPILED = {
    "rows:90:fp32:384:384:4": (232, 0, 22, set()),
    "rows:80:fp32:384:384:4": (240, 0, 22, set()),
    "rows:90:bf16:384:384:4": (232, 0, 24, set()),
    "rows:90:fp32:384:384:1": (168, 0, 8, set()),
    "rows:90:fp32:896:896:4": (216, 0, 32, set()),
    "rows:90:fp32:3072:3072:4": (248, 0, 28, set()),
    "large:90:bf16:384:384:10": (255, 0, 13, {"HGMMA", "HMMA"}),
    "small:90:fp32:384:384:10": (255, 0, 22, {"HGMMA", "HMMA"}),
    "narrow:80:fp32:384:384:10": (200, 0, 28, {"HMMA"}),
    "together:90:fp32:384:384:10": (255, 0, 25, {"HGMMA", "HMMA"}),
    "turned:90:bf16:384:384:10": (200, 0, 14, {"HGMMA"}),
}


@pytest.fixture(scope="module")
def compiled():
    """Compiled in a process of its own, since this one has the interpreter's functions."""
    command = [sys.executable, str(ROOT / "benchmarks" / "cuda_registers.py"), "--json", *COMPILED]
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert found.returncode == 0, found.stderr
    return {one["case"]: one for one in map(json.loads, found.stdout.splitlines())}


@pytest.mark.parametrize("case", COMPILED)
def test_registers_and_spills(case, compiled):
    registers, spilled, instructions, tensor_cores = COMPILED[case]
    found = compiled[case]
    assert found["registers"] <= registers, found
    assert found["spilled_bytes"] <= spilled, found
    assert found["STL"] <= spilled, found
    assert 1 < found["instructions_per_number"] <= instructions, found
    assert {name for name in ("HGMMA", "HMMA") if found[name]} == tensor_cores, found


@pytest.mark.parametrize(
    ("shape", "launch"),
    [
        (Shape(384, 384, 1, 4), "rows"),
        (Shape(384, 384, 4, 4), "rows"),
        (Shape(0, 768, 4, 2), "rows"),
        (Shape(2048, 2048, 4, 2), "rows"),
        (Shape(4096, 4096, 4, 4), "small"),  # the gradient fits no registers
        (Shape(4096, 4096, 4, 2), "large"),
        (Shape(384, 384, 5, 4), "small"),
        (Shape(384, 384, 16, 4), "small"),
        (Shape(384, 384, 10, 2), "large"),
        (Shape(384, 384, 17, 4), "large"),
    ],
)
def test_rule(shape, launch):
    assert chosen(shape) == launch
    assert launch_for(shape) == LAUNCHES[launch](shape)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [1, 30, 64, 192, 384, 512, 1000, 1024, 2048])
def test_pieces_hold_every_column_once(width, k):
    for n_context in (0, 7, width):
        launch = LAUNCHES["rows"](Shape(n_context, width, k, 4))
        sizes = launch.constants
        piece = sizes["COLUMNS"]
        assert (sizes["PIECES"] - 1) * piece < width <= sizes["PIECES"] * piece
        assert max(sizes["GATE_PIECES"] - 1, 0) * piece <= n_context <= sizes["GATE_PIECES"] * piece
        assert sizes["FULL"] == ((n_context + width) % piece == 0 and width % piece == 0)
        # 255 registers a thread, some 60 of which are addresses and the like.
        threads = 32 * launch.warps
        assert (sizes["PIECES"] + sizes["GATE_PIECES"]) * piece * (k + launch.rows) / threads <= 190
        assert launch.programs * launch.warps == 8


@pytest.mark.parametrize(("k", "rows", "components"), [(1, 128, 16), (17, 64, 32), (33, 32, 64), (1000, 16, 1024)])
def test_tiles_shrink_as_heads_grow(k, rows, components):
    sizes = LAUNCHES["large"](Shape(0, 100, k, 4)).constants
    assert (sizes["ROWS"], sizes["COMPONENTS"]) == (rows, components)
    together = LAUNCHES["together"](Shape(0, 100, k, 4))
    assert together.rows == 4 * together.constants["ROWS"]
    assert together.scratch == together.rows * 2 * components


def test_a_launch_that_does_not_take_a_shape():
    X = torch.randn(3, 2, device=DEVICE)
    with computed_on("triton rows"), pytest.raises(ValueError, match=r"expected one that the launch 'rows' takes"):
        mixture_nll_and_grad(X, X.new_zeros(5, 2))
    with pytest.raises(ValueError, match=r"launch: expected one of 'rows'.*, got 'fast'"), use_launch("fast"):
        pass
    assert launch_for(Shape(0, 2, 1, 4)).kernel == "rows"


@pytest.mark.parametrize("path", [path for path in SINGLE if path.startswith("triton")])
@pytest.mark.parametrize("k", [3, 4])
def test_many_tiles_with_padded_rows_and_heads(path, k):
    """Several tiles for one program, the last one not full: sums over all rows, in double precision."""
    n = 290 if path == "triton together" else 110
    random = torch.Generator().manual_seed(0)
    X, W, V, b = (torch.randn(*shape, generator=random).to(DEVICE) for shape in ((n, 9), (k, 5), (k, 4), (k,)))
    true = truth([t.cpu() for t in (X, W, V, b)] + [None], 4)
    with computed_on(path):
        found = mixture_nll_and_grad(X, W, V, b, 4)
    for value, expected in zip(found, true, strict=False):
        assert error(value, expected) < 2e-6
