"""Registers, spills and instructions of the Triton kernels, compiled for cards that need not be here.

    python benchmarks/cuda_registers.py                          # the table of docs/kernels.md
    python benchmarks/cuda_registers.py --json rows:90:fp32:384:384:4 small:80:bf16:384:384:10

A case is launch:capability:dtype:context:difference:heads. Instructions are those of the innermost loops over rows,
for each number of X that a thread holds, pointwise terms left out for tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from micropref.kernels._launches import LAUNCHES, Launch, Shape
from micropref.kernels._triton import KERNELS

TABLE = (
    *(f"rows:90:{dtype}:{c}:{d}:{k}" for dtype in ("fp32", "bf16") for c, d, k in ((384, 384, 1), (384, 384, 4))),
    *("rows:90:fp32:0:768:4", "rows:90:fp32:1024:1024:4", "rows:90:fp32:2048:2048:4", "rows:80:fp32:384:384:4"),
    *(
        f"{name}:90:{dtype}:384:384:10"
        for name in ("large", "ahead", "small", "narrow", "together")
        for dtype in ("fp32", "bf16")
    ),
    *("turned:90:bf16:384:384:10", "small:80:fp32:384:384:10", "narrow:80:fp32:384:384:10", "large:90:fp32:384:384:20"),
)
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_POINTERS = {"signs": "*i8"}
_INTEGERS = ("row_stride", "n_rows", "n_context", "n_features", "n_components", "n_tiles")
# What a fit of rows that lie together passes: widths and addresses are multiples of 16.
_DIVISIBLE = ("row_stride", "n_context", "n_features")
_COUNTED = ("HGMMA", "HMMA", "LDGSTS", "SHFL", "STL", "LDL")


def compiled(launch: Launch, dtype: str, has_gate: bool, capability: int):
    """The kernel that a fit would launch, for a card of this capability."""
    kernel = KERNELS[launch.kernel]
    constants = {
        "HAS_GATE": has_gate, "HAS_LOGITS": False, "HAS_WEIGHT": False, "HAS_SIGNS": True, "HAS_BALANCE": False,
        "OUT": 0, "column_stride": 1, **launch.constants,
    }  # fmt: skip
    types = {name: _POINTERS.get(name, "*fp32") for name in kernel.arg_names}
    types |= dict.fromkeys(_INTEGERS, "i32") | {"x": f"*{dtype}", "balance": "fp32"}
    types |= dict.fromkeys(constants, "constexpr")
    place = {name: (i,) for i, name in enumerate(kernel.arg_names)}
    aligned = [name for name in place if types[name].startswith("*") or name in _DIVISIBLE]
    source = ASTSource(
        fn=kernel,
        signature={name: types[name] for name in place},
        constexprs={place[name]: value for name, value in constants.items()},
        attrs={place[name]: [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def inspected(program: bytes) -> tuple[str, str]:
    """What cuobjdump says of resources, and the instructions."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program)
        file.flush()
        return tuple(
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "-sass")
        )


def loops(sass: str) -> list[list[str]]:
    """Instructions of every loop."""
    lines = [(int(at, 16), name, rest) for at, name, rest in re.findall(
        r"^\s+/\*([0-9a-f]{4,6})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]*)(.*)", sass, re.MULTILINE)]  # fmt: skip
    found = []
    for end, name, rest in lines:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if name == "BRA" and target and int(target[1], 16) < end - 64:
            found.append([one for at, one, _ in lines if int(target[1], 16) <= at <= end])
    return found


def instructions(launch: Launch, shape: Shape, sass: str) -> float:
    """Instructions of a warp for each number of X that one of its threads takes."""
    threads, sizes = 32 * launch.warps, launch.constants
    bodies = loops(sass)
    if launch.kernel == "rows":
        return max(map(len, bodies)) / ((shape.n_context + shape.n_features) * launch.rows / threads)
    innermost = [len(body) for body in bodies if {"HMMA", "HGMMA"} & set(body)]
    # Without the loops around them: one product and one gradient for differences, and one of each for contexts.
    pieces = sorted(innermost)[: 4 if shape.n_context else 2]
    return sum(pieces) / (2 if shape.n_context else 1) / (sizes["ROWS"] * sizes["COLUMNS"] / threads)


def measured(case: str) -> dict[str, object]:
    name, capability, dtype, *sizes = case.split(":")
    shape = Shape(*map(int, sizes), _BYTES[dtype])
    launch = LAUNCHES[name](shape)
    if launch is None:
        raise ValueError(f"case: expected a shape that {name} takes, got {case}")
    program = compiled(launch, dtype, shape.n_context > 0, int(capability))
    usage, sass = inspected(program.asm["cubin"])
    names = re.findall(r"^\s+/\*[0-9a-f]{4,6}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]*)", sass, re.MULTILINE)
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    return {
        "case": case,
        "registers": registers,
        "spilled_bytes": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared_bytes": program.metadata.shared,
        "warps_per_multiprocessor": 65536 // (registers * 32 * launch.warps) * launch.warps,
        "instructions_per_number": round(instructions(launch, shape, sass), 1),
        **{name: names.count(name) for name in _COUNTED},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=TABLE)
    parser.add_argument("--json", action="store_true", help="one object a line")
    given = parser.parse_args()
    for i, case in enumerate(given.cases):
        found = measured(case)
        if given.json:
            print(json.dumps(found), flush=True)
            continue
        if i == 0:
            print("|", " | ".join(found), "|")
            print("|", " | ".join("---" for _ in found), "|")
        print("|", " | ".join(map(str, found.values())), "|", flush=True)


if __name__ == "__main__":
    main()
