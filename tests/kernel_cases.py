"""A covering set of inputs for the kernels, their values in double precision, and what eager torch makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch

from micropref.kernels import use_path
from micropref.kernels._launches import LAUNCHES, Launch, Shape, launch_for, use_launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Every path, the kernels of triton each by themselves.
PATHS = ("reference", "blas", "numba", *(f"triton {name}" for name in LAUNCHES), "triton tall")
# Those that take single precision, for some tens of rows: Triton's interpreter takes a fifth of a second for a tile.
SINGLE = tuple(path for path in PATHS if path not in ("triton turned", "triton rows"))
# Numbers of X, of each kernel and of the others; and in the kernel of few heads pieces of tiles, times heads.
_INTERPRETED_NUMBERS = {"": 30_000, "large": 30_000, "small": 12_000}
_INTERPRETED_PIECES = 30

_ROWS = (1, 31, 257, 1000)
_CONTEXTS = (0, 1, 7, 64, 100, 384, 1025)
_DIFFERENCES = (7, 64, 1, 100, 384, 1025)
_COMPONENTS = (1, 2, 3, 10, 16, 33)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Case:
    """Sizes of one input, and what is special about it."""

    n: int
    c: int
    d: int
    k: int
    dtype: torch.dtype
    strided: bool
    weighted: bool
    size: float

    def __str__(self) -> str:
        special = [name for name in ("strided", "weighted") if getattr(self, name)]
        return "-".join(map(str, (self.n, self.c, self.d, self.k, str(self.dtype)[6:], *special, self.size)))

    def inputs(self) -> list[torch.Tensor | None]:
        """X, W, V, b and weights, of margins up to about `size`."""
        random = torch.Generator().manual_seed(self.n + self.c + self.d + self.k)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=random)

        width = self.c + self.d
        X = normal(2 * self.n, 3 * width)[::2, 1::3] if self.strided else normal(self.n, width)
        heads = normal(self.k, self.d) * (self.size / self.d**0.5)
        gate = normal(self.k, self.c) / self.c**0.5 if self.c else None
        weight = None
        if self.weighted:
            weight = 3 * torch.rand(self.n, generator=random)
            weight[: self.n // 3] = 0
        # Casting keeps gaps between rows and columns.
        stored = [None if t is None else t.to(self.dtype) for t in (X, heads, gate, normal(self.k))]
        if self.strided:
            padded = torch.empty(2 * self.n, 3 * width, dtype=self.dtype)
            padded[::2, 1::3] = stored[0]
            stored[0] = padded[::2, 1::3]
        return [*stored, weight]

    @property
    def tolerance(self) -> float:
        """What the kernel may err more than eager torch: sums in another order, and margins of this size rounded.

        Twice the rounding of one margin: processors differ in the order of a sum, and one with wider vectors was found
        1.6 roundings beyond torch.
        """
        return 5e-6 + self.size * 2**-22


def _tall(shape: Shape) -> Launch | None:
    """The kernel of few heads with tiles of 32 rows instead of 2 or 4."""
    launch = LAUNCHES["rows"](shape)
    if launch is None:
        return None
    constants = launch.constants | {"ROWS": 32, "APART": 2}
    return launch._replace(constants=constants, rows=32, scratch=launch.scratch * 32 // launch.rows)


@contextmanager
def computed_on(path: str) -> Iterator[None]:
    """One of `PATHS`, or triton with the kernel that it chooses."""
    name, _, launch = path.partition(" ")
    with use_path(name):
        if launch:
            with patch.dict(LAUNCHES, tall=_tall), use_launch(launch):
                yield
        else:
            yield


def takes(path: str, case: Case) -> bool:
    """Whether a path takes a case, within some seconds where Triton's interpreter runs it."""
    name, _, launch = path.partition(" ")
    if name != "triton":
        return True
    shape = Shape(case.c, case.d, case.k, case.dtype.itemsize)
    found = (LAUNCHES | {"tall": _tall})[launch](shape) if launch else launch_for(shape)
    if found is None or DEVICE == "cuda":
        return found is not None
    if found.kernel == "rows":
        n_tiles, sizes = -(-case.n // found.rows), found.constants
        return n_tiles * case.k * (sizes["PIECES"] + sizes["GATE_PIECES"]) <= _INTERPRETED_PIECES
    return case.n * (case.c + case.d) <= _INTERPRETED_NUMBERS.get(launch, 2_500)


def cases() -> list[Case]:
    """Every value of every size, in changing company."""
    return [
        Case(
            _ROWS[i % 4],
            _CONTEXTS[i % 7],
            _DIFFERENCES[(i // 2) % 6],
            _COMPONENTS[(i + i // 6) % 6],
            _DTYPES[(i + i // 3) % 3],
            strided=i % 5 == 0,
            weighted=i % 2 == 0,
            size=1e4 if i % 7 == 3 else 2.0,
        )
        for i in range(60)
    ]


def eager(inputs: list[torch.Tensor | None], c: int) -> list[torch.Tensor]:
    """Loss and its gradients with respect to W, V, b (those that are there) and X, by autograd in the inputs' dtype."""
    X, W, V, b, weight = (None if t is None else t.detach().clone() for t in inputs)
    leaves = [t.requires_grad_() for t in (W, V, b, X) if t is not None]
    logits = torch.zeros(len(X), len(W), dtype=X.dtype)
    if V is not None:
        logits = X[:, :c] @ V.T
    if b is not None:
        logits = logits + b
    joint = logits.log_softmax(-1) + torch.nn.functional.logsigmoid(X[:, c:] @ W.T)
    rows = -torch.logsumexp(joint, 1)
    weight = torch.ones(len(X), dtype=X.dtype) if weight is None else weight.to(X.dtype)
    loss = (weight * rows).sum() / weight.sum()
    gradients = torch.autograd.grad(loss, leaves)
    return [loss.detach(), *gradients]


def truth(inputs: list[torch.Tensor | None], c: int) -> list[torch.Tensor]:
    """The same in double precision."""
    return eager([None if t is None else t.double() for t in inputs], c)


def error(value: object, true: torch.Tensor) -> float:
    """Largest difference over the largest true value."""
    difference = (torch.as_tensor(value, dtype=torch.float64).cpu() - true).abs()
    return float(difference.max() / true.abs().max().clamp_min(1e-30)) if true.numel() else 0.0
