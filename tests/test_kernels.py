"""Every kernel path against double precision, and no worse than eager torch at the same dtype."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DEVICE, PATHS, SINGLE, Case, cases, computed_on, eager, error, takes, truth

import micropref.kernels as kernels
from micropref.kernels import (
    mixture_nll_and_grad,
    mixture_nll_and_grad_from_logits,
    mixture_posterior,
    mixture_sums,
    use_path,
)


def on(path: str, *tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Tensors where the path computes."""
    device = DEVICE if path.startswith("triton") else "cpu"
    return [None if t is None else t.to(device) for t in tensors]


def small(seed: int = 0, n: int = 37, c: int = 5, d: int = 6, k: int = 3, dtype: type = np.float32) -> list[np.ndarray]:
    """X, W, V, b, weights, signs as NumPy arrays."""
    random = np.random.default_rng(seed)
    shapes = (n, c + d), (k, d), (k, c), (k,)
    arrays = [random.normal(size=shape).astype(dtype) for shape in shapes]
    return [*arrays, random.random(n).astype(dtype), random.choice([-1, 1], n).astype(np.int8)]


def test_cases_hold_every_size():
    every = cases()
    assert len(set(every)) == 60
    assert {case.n for case in every} == {1, 31, 257, 1000}
    assert {case.c for case in every} == {0, 1, 7, 64, 100, 384, 1025}
    assert {case.d for case in every} == {1, 7, 64, 100, 384, 1025}
    assert {case.k for case in every} == {1, 2, 3, 10, 16, 33}
    assert {(case.dtype, case.weighted) for case in every} == {
        (dtype, weighted) for dtype in (torch.float32, torch.float16, torch.bfloat16) for weighted in (False, True)
    }
    assert sum(case.strided for case in every) >= 10
    assert sum(case.size == 1e4 for case in every) >= 8
    several = {"rows": 9, "tall": 16, "large": 30, "small": 25, "ahead": 20, "narrow": 20, "together": 20, "turned": 15}
    for path, least in several.items():
        assert sum(takes(f"triton {path}", case) for case in every) >= least, path


@pytest.mark.parametrize("case", cases(), ids=str)
def test_no_worse_than_eager(case: Case):
    inputs = case.inputs()
    true, plain = truth(inputs, case.c)[:-1], eager(inputs, case.c)[:-1]
    for path in PATHS:
        if not takes(path, case):
            continue
        X, W, V, b, weight = on(path, *inputs)
        with computed_on(path):
            found = mixture_nll_and_grad(X, W, V, b, case.c, weight)
        found = [value for value in found if value is not None]
        assert len(found) == len(true)
        for name, value, other, expected in zip(("loss", "dW", "dV", "db"), found, plain, true, strict=False):
            assert value.dtype == torch.float32
            assert error(value, expected) <= error(other, expected) + case.tolerance, (path, name)


@pytest.mark.parametrize("path", ["reference", "blas", "numba"])
@pytest.mark.parametrize("contiguous", [True, False])
def test_double_precision(path, contiguous):
    X, W, V, b, weight, _ = small(dtype=np.float64)
    if not contiguous:
        X = np.asfortranarray(X)
    true = truth([torch.from_numpy(a) for a in (X, W, V, b, weight)], 5)
    with use_path(path):
        found = mixture_nll_and_grad(X, W, V, b, 5, weight)
    assert isinstance(found[0], float)
    for value, expected in zip(found, true, strict=False):
        assert error(value, expected) < 1e-14


@pytest.mark.parametrize("path", SINGLE)
@pytest.mark.parametrize("gate", ["linear", "static", "uniform", "blind", "logits"])
def test_gates_labels_and_balance(path, gate):
    X, W, V, b, weight, signs = (torch.from_numpy(a) for a in small())
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(37, 3)).astype(np.float32))
    c = 5
    given = {
        "linear": {"V": V, "b": b},
        "static": {"b": b},
        "uniform": {},
        "blind": {"b": b},
        "logits": {"logits": logits},
    }[gate]
    if gate == "static":
        c, W = 0, torch.cat([W, W], 1)[:, :11]
    leaf = {name: value.double().requires_grad_() for name, value in {"W": W, **given}.items()}
    D = X[:, c:].double()
    products = (D @ leaf["W"].T).detach().requires_grad_()
    g = torch.zeros(37, 3, dtype=torch.float64)
    if gate == "linear":
        g = X[:, :c].double() @ leaf["V"].T
    g = (leaf["logits"] if gate == "logits" else g + leaf["b"] if "b" in leaf else g).detach().requires_grad_()
    log_pi = g.log_softmax(1)
    joint = log_pi + torch.nn.functional.logsigmoid(products * signs[:, None])
    rows = torch.logsumexp(joint, 1)
    loss = (weight.double() * (-rows + 0.3 * (log_pi.exp() * log_pi).sum(1))).sum()
    d_margins, d_logits = torch.autograd.grad(loss, (products, g))
    X, W, weight, signs, *values = on(path, X, W, weight, signs, *given.values())
    given = dict(zip(given, values, strict=True))
    with computed_on(path):
        sums = mixture_sums(
            X, W, n_context_features=c, sample_weight=weight, signs=signs, balance=0.3, row_gradients=True, **given
        )
        flipped = X.clone()
        flipped[:, c:] *= signs[:, None]
        log_likelihood, responsibilities = mixture_posterior(flipped, W, n_context_features=c, **given)
    assert error(sums.loss, loss.detach()) < 1e-6
    assert error(sums.heads, d_margins.T @ D) < 2e-6
    assert error(sums.d_margins, d_margins) < 2e-6
    assert error(sums.d_logits, d_logits) < 2e-6
    assert error(sums.offsets, d_logits.sum(0)) < 1e-5  # almost nothing is left of it
    if gate == "linear":
        assert error(sums.gate_weights, d_logits.T @ flipped[:, :c].double().cpu()) < 2e-6
    else:
        assert sums.gate_weights is None
    assert error(log_likelihood, rows.detach()) < 2e-6
    assert error(responsibilities, (joint - rows[:, None]).exp().detach()) < 2e-6


@pytest.mark.parametrize("path", SINGLE)
def test_logits_are_the_linear_gate(path):
    X, W, V, b, weight, _ = on(path, *(torch.from_numpy(a) for a in small()))
    with computed_on(path):
        loss, d_heads, d_gate, d_offsets = mixture_nll_and_grad(X, W, V, b, 5, weight)
        again, heads, d_logits = mixture_nll_and_grad_from_logits(X, W, X[:, :5] @ V.T + b, 5, weight)
    assert torch.allclose(loss, again, rtol=1e-6)
    assert torch.allclose(heads, d_heads, atol=1e-6)
    assert torch.allclose(d_logits.T @ X[:, :5], d_gate, atol=1e-6)
    assert torch.allclose(d_logits.sum(0), d_offsets, atol=1e-6)


# Triton's interpreter warns where a compiled kernel would not.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("path", SINGLE)
@pytest.mark.parametrize("where", ["context", "difference", "weight"])
def test_nan_is_never_hidden(path, where):
    X, W, V, b, weight, _ = (torch.from_numpy(a) for a in small())
    if where == "weight":
        weight[7] = np.nan
    else:
        X[7, 2 if where == "context" else 8] = np.nan
    X, W, V, b, weight = on(path, X, W, V, b, weight)
    with computed_on(path):
        found = mixture_nll_and_grad(X, W, V, b, 5, weight)
        rows = mixture_posterior(X, W, V, b, 5)
    assert all(bool(torch.isnan(torch.as_tensor(value)).any()) for value in found)
    assert bool(torch.isnan(found[0]))
    if where != "weight":
        bad = torch.isnan(rows.log_likelihood)
        assert bad.nonzero().ravel().tolist() == [7]
        assert torch.isnan(rows.responsibilities).any(1).nonzero().ravel().tolist() == [7]


@pytest.mark.parametrize("path", SINGLE)
def test_margins_of_ten_thousand(path):
    X, W = torch.tensor([[1e4], [-1e4], [1e4]]), torch.tensor([[1.0], [-1.0]])
    b = torch.tensor([0.0, -2.0])
    X, W, b = on(path, X, W, b)
    with computed_on(path):
        log_likelihood, responsibilities = mixture_posterior(X, W, None, b)
        worst = mixture_nll_and_grad(-X[:1], W[:1])
    log_pi = b.cpu().log_softmax(0)
    assert torch.allclose(log_likelihood.cpu(), log_pi[[0, 1, 0]])
    assert responsibilities.cpu().tolist() == [[1, 0], [0, 1], [1, 0]]
    assert float(worst[0]) == 1e4
    assert worst[1].tolist() == [[1e4]]


@pytest.mark.parametrize("path", SINGLE)
def test_loss_of_certain_rows_keeps_its_digits(path):
    X, W = on(path, torch.tensor([[40.0], [35.0]]), torch.ones(1, 1))
    with computed_on(path):
        loss = mixture_nll_and_grad(X, W)[0]
    assert error(loss, torch.tensor((np.exp(-40) + np.exp(-35)) / 2)) < 1e-6


@pytest.mark.parametrize("path", SINGLE)
@pytest.mark.parametrize("n", [0, 4])
def test_no_rows_and_no_weight(path, n):
    X, W, V, b, _, _ = on(path, *(torch.from_numpy(a) for a in small(n=n)))
    weight = torch.zeros(n, device=X.device)
    with computed_on(path):
        loss, *gradients = mixture_nll_and_grad(X, W, V, b, 5, weight)
        rows = mixture_posterior(X, W, V, b, 5)
        of_logits = mixture_nll_and_grad_from_logits(X, W, torch.zeros(n, 3, device=X.device), 5, weight)
    assert float(loss) == 0
    assert [tuple(g.shape) for g in gradients] == [(3, 6), (3, 5), (3,)]
    assert not any(bool(g.any()) for g in gradients)
    assert rows.log_likelihood.shape == (n,)
    assert of_logits[2].shape == rows.responsibilities.shape == (n, 3)


def test_static_weights_without_context():
    X, W, _, b, _, _ = small(c=0, d=6)
    empty = np.zeros((3, 0), np.float32)
    loss, d_heads, d_gate, d_offsets = mixture_nll_and_grad(X, W, empty, b)
    again = mixture_nll_and_grad(X, W, None, b)
    assert loss == again[0]
    assert d_gate.shape == (3, 0)
    assert again[2] is None
    np.testing.assert_array_equal(d_heads, again[1])
    np.testing.assert_array_equal(d_offsets, again[3])


@pytest.mark.parametrize("path", SINGLE)
def test_same_bits_every_run(path):
    X, W, V, b, weight, _ = on(path, *(torch.from_numpy(a) for a in small(n=100 if path == "triton tall" else 300)))
    with computed_on(path):
        first, second = (mixture_nll_and_grad(X, W, V, b, 5, weight) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@given(st.integers(1, 70), st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**20))
@settings(deadline=None, max_examples=30)
def test_paths_of_the_cpu_agree(n, k, c, seed):
    X, W, V, b, weight, signs = small(seed, n, c, 4, k, np.float64)
    found = []
    for path in ("reference", "blas", "numba"):
        with use_path(path):
            found.append(mixture_sums(X, W, V, b, c, sample_weight=weight, signs=signs, balance=0.1))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("path", ["blas", "numba"])
def test_threads_change_no_bit(path, monkeypatch):
    X, W, V, b, weight, _ = small(n=1000)
    found = []
    for threads in ("1", "3", "8"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr("micropref.kernels._threads._ENTRIES_PER_SLICE", 1000)
        with use_path(path):
            found.append((*mixture_nll_and_grad(X, W, V, b, 5, weight), *mixture_posterior(X, W, V, b, 5)))
    for one, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_threads_follow_the_environment(monkeypatch):
    from micropref.kernels import _threads

    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert _threads.available() == 3
    assert _threads.split(3, 1 << 20) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert len(_threads.split(1000, 1 << 20)) == 256
    assert _threads.run(lambda rows: rows.start, _threads.split(100, 1 << 20)) == list(range(100))
    assert _threads.split(1, 10) == [slice(0, 1)]
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert _threads.available() >= 1


# ------------------------------------------------------------------------------------------------------- choice of path


@pytest.mark.parametrize(
    ("n", "installed", "path"), [(10, True, "blas"), (300_000, True, "numba"), (300_000, False, "blas")]
)
def test_path_of_arrays(n, installed, path, monkeypatch):
    from micropref.kernels import _dispatch

    monkeypatch.setattr(_dispatch, "_installed", lambda module: installed)
    assert _dispatch.path_for(np.zeros((n, 8), np.float32)) == path
    assert _dispatch.path_for(torch.zeros(n, 8)) == path


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "path"),
    [
        ("cuda", torch.float16, True, "triton"),
        ("cuda", torch.float64, True, "reference"),
        ("cuda", torch.float32, False, "reference"),
        ("meta", torch.float32, True, "reference"),
    ],
)
def test_path_of_tensors_elsewhere(device, dtype, installed, path, monkeypatch):
    from types import SimpleNamespace

    from micropref.kernels import _dispatch

    monkeypatch.setattr(_dispatch, "_installed", lambda module: installed)
    monkeypatch.setattr(_dispatch, "is_torch", lambda array: True)
    monkeypatch.setattr(_dispatch, "namespace", lambda array: torch)
    X = SimpleNamespace(device=SimpleNamespace(type=device), dtype=dtype, shape=(10**6, 10))
    assert _dispatch.path_for(X) == path


@pytest.mark.parametrize(
    ("version", "knows"), [("3.0.0", False), ("3.2.0+git1", False), ("3.3.0", True), ("3.10.1", True), ("4.0", True)]
)
def test_an_older_triton_is_left_alone(version, knows, monkeypatch):
    from micropref.kernels import _dispatch

    monkeypatch.setattr(_dispatch, "version", lambda package: version)
    assert _dispatch._knows_tuples.__wrapped__() is knows


def test_installed_is_what_can_be_imported():
    from micropref.kernels import _dispatch

    assert _dispatch._installed("numba")
    assert not _dispatch._installed("no_such_module_anywhere")


def test_programs_of_a_gpu(monkeypatch):
    from types import SimpleNamespace

    from micropref.kernels import _triton

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132))
    assert _triton._n_programs.__wrapped__(SimpleNamespace(type="cuda"), 8) == 1056


def test_forced_path_ends_with_its_block():
    from micropref.kernels import _dispatch

    X = np.zeros((1, 1))
    with use_path("reference"):
        assert _dispatch.path_for(X) == "reference"
    with pytest.raises(ValueError, match="W: expected shape"), use_path("reference"):
        mixture_nll_and_grad(X, X[:0])
    assert _dispatch.path_for(X) == "blas"


def test_unknown_path():
    with pytest.raises(ValueError, match=r"path: expected one of 'triton'.*, got 'fast'"), use_path("fast"):
        pass


def test_cpu_path_of_a_tensor_elsewhere():
    X, W = torch.zeros(3, 2, device="meta"), torch.zeros(1, 2, device="meta")
    with use_path("blas"), pytest.raises(ValueError, match="got one on meta"):
        mixture_nll_and_grad(X, W)


@pytest.mark.parametrize(
    "X", [np.zeros((2, 2), np.float32), torch.zeros(2, 2, dtype=torch.float64)], ids=["ndarray", "float64"]
)
def test_triton_takes_tensors_in_single_precision(X):
    W = X[:1]
    with (
        use_path("triton"),
        pytest.raises(ValueError, match=r"for the triton path, got a (tensor of torch.float64|ndarray)"),
    ):
        mixture_nll_and_grad(X, W)


def test_import_is_free():
    code = "import sys, micropref.kernels; print([m for m in ('torch', 'triton', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(kernels.__all__) == set(dir(kernels))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kernels.nothing  # noqa: B018


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": [[1.0, 2.0]]}, "X: expected a NumPy array or a torch tensor, got a list"),
        ({"X": np.zeros(3)}, r"X: expected two dimensions, \(n_rows, n_columns\), got shape \(3,\)"),
        ({"X": np.zeros((37, 11), int)}, "X: expected float16.*, got dtype int64"),
        ({"X": torch.zeros(37, 11, dtype=torch.int32)}, "X: expected float16.*, got dtype torch.int32"),
        ({"n_context_features": 1.5}, "n_context_features: expected an integer, got 1.5"),
        ({"n_context_features": True}, "n_context_features: expected an integer, got True"),
        (
            {"n_context_features": 11},
            "n_context_features: expected at least 0 and less than the 11.*, got 11",
        ),
        ({"n_context_features": -1}, "n_context_features: expected at least 0.*, got -1"),
        (
            {"W": np.zeros((3, 7))},
            r"W: expected shape \(n_components, 6\).* after its 5.*, got shape \(3, 7\)",
        ),
        ({"W": np.zeros((0, 6))}, r"W: expected shape.*, got shape \(0, 6\)"),
        ({"W": np.zeros(6)}, r"W: expected shape.*, got shape \(6,\)"),
        ({"W": np.zeros((3, 6), int)}, "W: expected float16.*, got dtype int64"),
        ({"W": torch.zeros(3, 6)}, "W: expected a NumPy array, as X is, got a Tensor"),
        ({"V": np.zeros((3, 4))}, r"V: expected shape \(3, 5\), got \(3, 4\)"),
        ({"b": np.zeros((3, 1))}, r"b: expected shape \(3,\), got \(3, 1\)"),
        ({"sample_weight": np.zeros(36)}, r"sample_weight: expected shape \(37,\), got \(36,\)"),
        ({"sample_weight": np.zeros(37, bool)}, "sample_weight: expected float16.*, got dtype bool"),
    ],
)
def test_what_does_not_fit(changes, message):
    X, W, V, b, _, _ = small()
    arguments = {"X": X, "W": W, "V": V, "b": b, "n_context_features": 5, **changes}
    with pytest.raises(ValueError, match=message):
        mixture_nll_and_grad(**arguments)


def test_tensors_of_two_kinds():
    X, W = torch.zeros(4, 2), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="W: expected a torch tensor on cpu, as X is, got a ndarray"):
        mixture_nll_and_grad(X, W.numpy())
    with pytest.raises(ValueError, match="W: expected a torch tensor on cpu, as X is, got one on meta"):
        mixture_nll_and_grad(X, W.to("meta"))


def test_logits_and_a_linear_gate():
    X, W, V, _, _, _ = small()
    with pytest.raises(ValueError, match="expected either logits or V and b"):
        mixture_posterior(X, W, V, None, 5, logits=np.zeros((37, 3)))
    with pytest.raises(ValueError, match=r"logits: expected shape \(37, 3\), got \(3, 37\)"):
        mixture_nll_and_grad_from_logits(X, W, np.zeros((3, 37)), 5)
