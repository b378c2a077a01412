"""Every way of computing that is there, compared with double precision on a small example, with its time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from micropref._installation.choices import Choice
from micropref._installation.devices import Devices
from micropref._installation.faults import sentence
from micropref._installation.truth import Example, example, truth
from micropref._support.optional import require
from micropref.kernels import mixture_nll_and_grad, use_path
from micropref.kernels._launches import Shape, chosen

__all__ = ["Case", "Check", "cases", "check", "faiss_checks"]

# Largest error over the largest true value. In single precision, sums of some hundred rows stay well below it; half
# precision is stored and single computed, and truth takes the rows as they are stored.
_TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-5, "bfloat16": 2e-5}
_N_ROWS, _N_ROWS_INTERPRETED = 400, 32
_REPEATS = 3
_FEW, _MANY = 3, 10
_N_POINTS, _N_QUERIES, _WIDTH, _N_NEAREST = 2000, 50, 16, 5


class Case(NamedTuple):
    """A path, and what it is given.

    Attributes
    ----------
    path : str
        A kernel path, or "layer": the loss as an operator of torch, by the path that is chosen.
    device : str
        "NumPy", or a device of torch.
    dtype : str
    n_components : int
    """

    path: str
    device: str
    dtype: str
    n_components: int = _FEW


@dataclass(frozen=True)
class Check:
    """What came of it.

    Attributes
    ----------
    path, input : str
        The path, for Triton with its kernel; kind, number type and device of the rows.
    n_components : int or None
        None where there are no heads.
    error : float or None
        Largest difference from double precision over the largest true value; None where nothing was computed.
    tolerance : float
    first_ms, ms : float or None
        Time of the first call, which compiles, and of the fastest of three further ones.
    failure : str or None
        The error that was raised.
    """

    path: str
    input: str
    n_components: int | None
    error: float | None
    tolerance: float
    first_ms: float | None
    ms: float | None
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it computed, and nearly the true values."""
        return self.failure is None and self.error is not None and self.error <= self.tolerance

    def covers(self, choice: Choice) -> bool:
        """Whether it computed by the path of `choice` where the rows of `choice` lie."""
        return self.path.partition(",")[0] == choice.path and (" on cuda" in self.input) == choice.on_card

    @property
    def problem(self) -> str:
        """What is wrong, as a sentence."""
        heads = "" if self.n_components is None else f", {self.n_components} heads"
        expected = f"{self.path}, {self.input}{heads}: expected an error of at most {self.tolerance:g}"
        return f"{expected}, got {self.failure if self.error is None else f'{self.error:.2g}'}"


def cases(devices: Devices, has_numba: bool, has_triton: bool) -> list[Case]:
    """What can run here; several numbers of heads where they have kernels of their own."""
    found = [Case(path, "NumPy", dtype) for path in ("reference", "blas") for dtype in ("float64", "float32")]
    if has_numba:
        found += [Case("numba", "NumPy", dtype) for dtype in ("float64", "float32")]
    if devices.torch is None or devices.torch.seen is None:
        return found
    found += [Case("reference", "cpu", "float32"), Case("layer", "cpu", "float32")]
    if has_triton and os.environ.get("TRITON_INTERPRET") == "1":
        found += [Case("triton", "cpu", "float32"), Case("triton", "cpu", "float32", _MANY)]
    for i in range(len(devices.torch_cards)):
        found += _of_card(f"cuda:{i}", has_triton)
    return found


def _of_card(device: str, has_triton: bool) -> list[Case]:
    found = [Case("reference", device, "float64"), Case("reference", device, "float32")]
    if has_triton:
        found += [Case("triton", device, dtype) for dtype in ("float32", "bfloat16")]
        found += [Case("triton", device, dtype, _MANY) for dtype in ("float32", "float16")]
    return [*found, Case("layer", device, "float32")]


def check(case: Case) -> Check:
    """Compute one case; whatever goes wrong in it is its result."""
    interpreted = case.path == "triton" and case.device == "cpu"
    given = example(_N_ROWS_INTERPRETED if interpreted else _N_ROWS, case.n_components)
    place = "" if case.device == "NumPy" else f" on {case.device}"
    empty = Check(
        _shown_path(case, given), f"{'NumPy' if case.device == 'NumPy' else 'torch'} {case.dtype}{place}",
        case.n_components, None, _TOLERANCE[case.dtype], None, None,
    )  # fmt: skip
    return _measured(empty, lambda: _ready(case, given))


def faiss_checks(devices: Devices) -> Iterator[Check]:
    """Nearest neighbours by an index of faiss, on the CPU and on the first card that faiss sees."""
    if devices.faiss is None:
        return
    for place in ("CPU", *(("card 0",) if devices.faiss_cards else ())):
        yield _measured(
            Check("faiss", f"NumPy float32, index on {place}", None, None, _TOLERANCE["float32"], None, None),
            partial(_nearest, on_card=place != "CPU"),
        )


# A call that computes, which is repeated, and what it should give.
_Prepared = tuple[Callable[[], Sequence[Any]], Sequence[np.ndarray]]


def _measured(empty: Check, prepare: Callable[[], _Prepared]) -> Check:
    about = {name: getattr(empty, name) for name in ("path", "input", "n_components", "tolerance")}
    try:
        compute, true = prepare()
        start = time.perf_counter()
        values = compute()
        first_ms = 1e3 * (time.perf_counter() - start)
        times = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            compute()
            times.append(1e3 * (time.perf_counter() - start))
        return Check(**about, error=_error(values, true), first_ms=first_ms, ms=min(times))
    except Exception as error:  # compilers and drivers raise what they like, and that is what is looked for here
        return Check(**about, error=None, first_ms=None, ms=None, failure=sentence(error))


def _error(values: Sequence[Any], true: Sequence[np.ndarray]) -> float:
    """Infinite where a value is not finite."""
    errors = [float(np.max(np.abs(v - t)) / np.max(np.abs(t))) for v, t in zip(values, true, strict=True)]
    return max(error if np.isfinite(error) else np.inf for error in errors)


def _shown_path(case: Case, given: Example) -> str:
    if case.path == "layer":
        return "torch layer"
    if case.path != "triton":
        return case.path
    itemsize = 4 if case.dtype == "float32" else 2
    shape = Shape(given.n_context, given.W.shape[1], case.n_components, itemsize)
    return f"triton, {chosen(shape)}"


def _ready(case: Case, given: Example) -> _Prepared:
    stored = given.X.astype(case.dtype) if case.device == "NumPy" else _tensor(given.X, case.dtype, case.device)
    computed = "float64" if case.dtype == "float64" else "float32"
    others: list[Any] = [
        array.astype(computed) if case.device == "NumPy" else _tensor(array, computed, case.device)
        for array in (given.W, given.V, given.b, given.weight)
    ]
    W, V, b, weight = map(_double, others)
    exact = Example(_double(stored), W, V, b, weight, given.n_context)
    compute = partial(_layer if case.path == "layer" else _sums, case.path, stored, others, given.n_context)
    return compute, truth(exact)


def _sums(path: str, X: Any, others: list[Any], n_context: int) -> list[np.ndarray]:
    W, V, b, weight = others
    with use_path(path):
        return [_double(value) for value in mixture_nll_and_grad(X, W, V, b, n_context, weight)]


def _layer(path: str, X: Any, others: list[Any], n_context: int) -> list[np.ndarray]:
    from micropref.kernels import mixture_nll  # which imports torch

    W, V, b = (one.clone().requires_grad_() for one in others[:3])
    loss: Any = mixture_nll(X, W, V, b, n_context, others[3])
    loss.backward()
    return [_double(loss), *(_double(one.grad) for one in (W, V, b))]


def _tensor(array: np.ndarray, dtype: str, device: str) -> Any:
    torch = require("torch", "Checking torch")
    return torch.as_tensor(array).to(device=device, dtype=getattr(torch, dtype))


def _double(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().double().cpu().numpy()
    return np.asarray(value, dtype=np.float64)


def _nearest(on_card: bool) -> _Prepared:
    """Squared distances of the nearest points."""
    faiss = require("faiss", "Checking faiss")
    rng = np.random.default_rng(0)
    points, queries = (rng.normal(size=(n, _WIDTH)).astype(np.float32) for n in (_N_POINTS, _N_QUERIES))
    index = faiss.IndexFlatL2(_WIDTH)
    resources = faiss.StandardGpuResources() if on_card else None
    if on_card:
        index = faiss.index_cpu_to_gpu(resources, 0, index)
    index.add(points)
    differences = queries[:, None].astype(np.float64) - points[None]
    true = np.sort(np.sum(differences**2, axis=2), axis=1)[:, :_N_NEAREST]
    # The resources must live as long as the index.
    return (lambda resources=resources: [index.search(queries, _N_NEAREST)[0].astype(np.float64)]), [true]
