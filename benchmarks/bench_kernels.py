"""How near is the fused likelihood to one read of X? Against autograd, torch.compile and hand-written products.

One row per measurement: median, 20th and 80th percentile of the time for loss and gradient; the bytes of one read of X
over that time, as a share of the bandwidth of a copy measured in the same run (a copy reads and writes); and memory
beyond the inputs. Half of the width is context. On CUDA every kernel that takes a shape is measured, a second file says
which one won for every shape and whether it is the one that the rule chooses, and a converged fit is measured too.

    python benchmarks/bench_kernels.py                                     # this machine's CPU
    python -m pytest tests/test_kernels*.py && python benchmarks/bench_kernels.py --device cuda
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import torch

import micropref
from micropref import MixtureBradleyTerry
from micropref.kernels import mixture_nll_and_grad, use_path
from micropref.kernels._launches import LAUNCHES, Shape, chosen, use_launch

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def nll(X, W, V, b, c):
    """The loss as anybody would write it in torch."""
    log_weights = (X[:, :c] @ V.T + b).log_softmax(-1)
    return -torch.logsumexp(log_weights + torch.nn.functional.logsigmoid(X[:, c:] @ W.T), 1).mean()


def two_products(X, W, V, b, c):
    """The analytic gradient from two products forward and two backward."""
    log_weights = (X[:, :c] @ V.T + b).log_softmax(-1)
    margins = X[:, c:] @ W.T
    joint = log_weights + torch.nn.functional.logsigmoid(margins)
    log_likelihood = torch.logsumexp(joint, 1, keepdim=True)
    posterior = (joint - log_likelihood).exp()
    d_margins = -posterior * torch.sigmoid(-margins) / len(X)
    d_logits = (log_weights.exp() - posterior) / len(X)
    return -log_likelihood.mean(), d_margins.T @ X[:, c:], d_logits.T @ X[:, :c], d_logits.sum(0)


def autograd(loss: Callable, X, W, V, b, c) -> Callable[[], object]:
    """Loss and gradients by backward()."""
    leaves = [p.detach().clone().requires_grad_() for p in (W, V, b)]
    return lambda: torch.autograd.grad(loss(X, *leaves, c), leaves)


def on_path(path: str, *arguments) -> Callable[[], object]:
    """The kernel on one path."""

    def run() -> object:
        with use_path(path):
            return mixture_nll_and_grad(*arguments)

    return run


def on_launch(name: str, *arguments) -> Callable[[], object]:
    """One of the kernels of the path triton."""

    def run() -> object:
        with use_path("triton"), use_launch(name):
            return mixture_nll_and_grad(*arguments)

    return run


def shape_of(X: torch.Tensor, W: torch.Tensor, c: int) -> Shape:
    return Shape(c, X.shape[1] - c, len(W), X.element_size())


def methods(device: str, *arguments) -> dict[str, Callable[[], object]]:
    """Everything that is compared, by its name: torch's ways, and every path or kernel that takes the shape."""
    X, W, _, _, c = arguments
    # One shape at a time: after eight of them torch would run the rest as they are written.
    torch._dynamo.reset()
    compiled = torch.compile(nll, dynamic=False)
    found = {
        "autograd": autograd(nll, *arguments),
        "torch.compile": autograd(compiled, *arguments),
        "two products": lambda: two_products(*arguments),
    }
    if device != "cuda":
        return found | {path: on_path(path, *arguments) for path in ("blas", "numba")}
    takes = [name for name, launch in LAUNCHES.items() if launch(shape_of(X, W, c)) is not None]
    return found | {f"triton {name}": on_launch(name, *arguments) for name in takes}


def times(run: Callable[[], object], device: str, repeats: int) -> np.ndarray:
    """Seconds of every repetition, after one to warm up."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return np.array(found[1:])


def extra_memory(run: Callable[[], object], device: str) -> float:
    """Peak beyond what is there before, in MB."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    # Memory freed before must not hide what is allocated now; then the high-water mark is lowered to the present.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    run()
    return (resident("VmHWM") - before) / 1e3


def resident(field: str = "VmRSS") -> int:
    """kB of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def copy_bandwidth(X: torch.Tensor, device: str, repeats: int) -> float:
    """Bytes a second, read and written."""
    target = torch.empty_like(X)
    return 2 * X.nbytes / np.median(times(lambda: target.copy_(X), device, repeats))


def fit_seconds(dtype: torch.dtype) -> tuple[float, float, bool]:
    """A converged fit of a million pairs at width 768 with four heads: the process's first, and the next."""
    n, c, d, k = 1_000_000, 384, 384, 4
    random = torch.Generator("cuda").manual_seed(0)
    X = torch.randn(n, c + d, generator=random, device="cuda")
    heads, gate = (
        torch.randn(k, d, generator=random, device="cuda") / 5,
        torch.randn(k, c, generator=random, device="cuda") / 5,
    )
    kind = torch.distributions.Categorical(logits=X[:, :c] @ gate.T).sample()
    y = torch.bernoulli(torch.sigmoid((X[:, c:] * heads[kind]).sum(1))).cpu().numpy().astype(int)
    model = MixtureBradleyTerry(k, n_context_features=c, n_init=1, random_state=0)
    X = X.to(dtype)
    found = []
    for _ in range(2):
        start = time.perf_counter()
        model.fit(X, y)
        found.append(time.perf_counter() - start)
    return found[0], found[1], model.converged_


def about(device: str) -> dict[str, str]:
    """Where, when and with what."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = {"micropref": micropref.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "hardware": hardware(device),
        "versions": " ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": commit,
        "date": date.today().isoformat(),
    }


def measured(n: int, width: int, dtype: str, k: int, device: str, repeats: int) -> Iterator[dict[str, object]]:
    """A row of the table for every method that takes this size."""
    c = width // 2
    random = torch.Generator(device).manual_seed(0)
    X, W, V, b = (
        torch.randn(shape, generator=random, device=device).to(DTYPES[dtype])
        for shape in ((n, width), (k, width - c), (k, c), (k,))
    )
    bandwidth = copy_bandwidth(X, device, repeats)
    for method, run in methods(device, X, W, V, b, c).items():
        size = {"n": n, "width": width, "k": k, "dtype": dtype, "method": method}
        try:
            found = times(run, device, repeats)
        except Exception as error:  # a kernel that a card cannot run must not hide the others
            print(*size.values(), f"failed: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        low, median, high = np.percentile(found, [20, 50, 80]) * 1e3
        yield {
            **size,
            "median_ms": f"{median:.3f}", "p20_ms": f"{low:.3f}", "p80_ms": f"{high:.3f}",
            "share_of_copy": f"{X.nbytes / median * 1e3 / bandwidth:.3f}",
            "copy_GB_per_s": f"{bandwidth / 1e9:.1f}",
            "extra_MB": f"{extra_memory(run, device):.1f}",
        }  # fmt: skip


def winner(rows: list[dict[str, object]]) -> dict[str, object]:
    """The fastest kernel of one size, beside the one that the rule chooses and the fastest of torch's ways."""
    ms = {str(row["method"]): float(str(row["median_ms"])) for row in rows}
    n, width, k, dtype = (rows[0][name] for name in ("n", "width", "k", "dtype"))
    ours = {method.removeprefix("triton "): value for method, value in ms.items() if method.startswith("triton ")}
    others = {method: value for method, value in ms.items() if not method.startswith("triton ")}
    c = int(str(width)) // 2
    rule = chosen(Shape(c, int(str(width)) - c, int(str(k)), DTYPES[str(dtype)].itemsize))
    best, rival = min(ours, key=ours.__getitem__, default=""), min(others, key=others.__getitem__, default="")
    return {
        "n": n, "width": width, "k": k, "dtype": dtype, "won": best, "won_ms": ours.get(best, ""),
        "chosen": rule, "chosen_ms": ours.get(rule, ""), "best_of_torch": rival, "torch_ms": others.get(rival, ""),
        "times_faster_than_torch": f"{others[rival] / ours[best]:.2f}" if ours and others else "",
        "share_of_copy": next((row["share_of_copy"] for row in rows if row["method"] == f"triton {best}"), ""),
    }  # fmt: skip


class Table:
    """A CSV file that has every row as soon as it is measured."""

    def __init__(self, path: Path, append: bool) -> None:
        self.path, self.adding = path, append and path.exists()
        self.file = path.open("a" if self.adding else "w", newline="")
        self.writer: csv.DictWriter | None = None

    def add(self, row: dict[str, object]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, row, lineterminator="\n")
            if not self.adding:
                self.writer.writeheader()
        self.writer.writerow(row)
        self.file.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--components", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--append", action="store_true", help="add rows to those of an earlier run")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    cuda = given.device == "cuda"
    given.rows = given.rows or ([100_000, 1_000_000] if cuda else [100_000])
    given.widths = given.widths or ([384, 768, 2048, 4096] if cuda else [384, 768])
    return given


def main() -> None:
    given = arguments()
    given.output.mkdir(exist_ok=True)
    table = Table(given.output / f"kernels_{given.device}.csv", given.append)
    winners = Table(given.output / "kernels_cuda_winners.csv", given.append) if given.device == "cuda" else None
    where, won = about(given.device), []
    for n, width, dtype, k in product(given.rows, given.widths, given.dtypes, given.components):
        rows = []
        for row in measured(n, width, dtype, k, given.device, given.repeats):
            rows.append(row)
            table.add(row | where)
            print(*(f"{value:>15}" for value in row.values()), flush=True)
        if winners is not None:
            won.append(winner(rows))
            winners.add(won[-1] | where)
    for one in won:
        print(*(f"{name} {value}" for name, value in one.items()), sep=", ")
    if given.device == "cuda":
        for name in given.dtypes:
            first, second, converged = fit_seconds(DTYPES[name])
            print(f"fit of 1 000 000 pairs, width 768, K = 4, {name}: {first:.2f} s with what Triton compiles, then "
                  f"{second:.2f} s, converged: {converged}")  # fmt: skip
    print(table.path)


if __name__ == "__main__":
    main()
