"""The operator of torch: checked by torch's own tools, under compilation, and inside a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import DEVICE, cases, error, truth

from micropref.kernels import MixtureNLL, mixture_nll, use_path
from micropref.kernels._torch_op import _mixture_nll


def inputs(dtype: torch.dtype = torch.float64, n: int = 9) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = (n, 7), (3, 4), (3, 3), (3,)
    tensors = [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes]
    return [*tensors, torch.rand(n, generator=random).to(dtype)]


@pytest.mark.parametrize("path", ["reference", "blas", "numba"])
def test_gradcheck(path):
    X, W, V, b, weight = inputs()
    logits = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    with use_path(path):
        assert torch.autograd.gradcheck(lambda X, W, V, b: mixture_nll(X, W, V, b, 3, weight), (X, W, V, b))
        assert torch.autograd.gradcheck(lambda X, W, b: mixture_nll(X, W, None, b, 3), (X, W, b))
        assert torch.autograd.gradcheck(lambda X, W, g: mixture_nll(X, W, None, None, 3, logits=g), (X, W, logits))


def test_opcheck():
    X, W, V, b, weight = inputs(torch.float32)
    logits = torch.randn(9, 3, requires_grad=True)
    torch.library.opcheck(_mixture_nll, (X, W, V, b, None, weight, 3, True))
    torch.library.opcheck(_mixture_nll, (X.detach(), W, None, b, None, None, 3, False))
    torch.library.opcheck(_mixture_nll, (X, W, None, None, logits, None, 3, True))


@pytest.mark.parametrize("path", ["blas", "triton"])
@pytest.mark.parametrize("case", [case for case in cases() if case.n * (case.c + case.d) < 4_000][:8], ids=str)
def test_upstream_gradients(case, path):
    tensors = case.inputs()
    upstream = float(torch.randn((), generator=torch.Generator().manual_seed(case.n)))
    assert upstream not in (0.0, 1.0)
    true = [gradient * upstream for gradient in truth(tensors, case.c)[1:]]
    X, W, V, b, weight = (t if t is None or path != "triton" else t.to(DEVICE) for t in tensors)
    leaves = [t.requires_grad_() for t in (W, V, b, X) if t is not None]
    with use_path(path):
        gradients = torch.autograd.grad(mixture_nll(X, W, V, b, case.c, weight) * upstream, leaves)
    # Gradients are rounded to the dtype of what they belong to.
    tolerance = case.tolerance + {torch.float32: 0, torch.float16: 2**-10, torch.bfloat16: 2**-8}[case.dtype]
    for value, expected, leaf in zip(gradients, true, leaves, strict=True):
        assert value.dtype == leaf.dtype
        assert error(value, expected) <= tolerance


@pytest.mark.parametrize("needs", ["X", "W", "V", "b"])
def test_gradient_of_one_argument_alone(needs):
    names = ("X", "W", "V", "b")
    tensors = dict(zip(names, (t.detach() for t in inputs()), strict=False))
    everything = dict(zip(names, inputs(), strict=False))
    mixture_nll(**everything, n_context_features=3).backward()
    tensors[needs].requires_grad_()
    mixture_nll(**tensors, n_context_features=3).backward()
    torch.testing.assert_close(tensors[needs].grad, everything[needs].grad)


def test_no_second_derivative():
    _, W, _, _, _ = inputs()
    X = torch.randn(9, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(mixture_nll(X, W), W, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def _same_when_compiled(backend: str) -> None:
    X, W, V, b, weight = inputs(torch.float32)

    def step(X: torch.Tensor, W: torch.Tensor, V: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 2 * mixture_nll(torch.tanh(X), W, V, b, 3, weight)

    step(X, W, V, b).backward()
    expected = [t.grad.clone() for t in (X, W, V, b)]
    for t in (X, W, V, b):
        t.grad = None
    torch.compile(step, fullgraph=True, backend=backend)(X, W, V, b).backward()
    for t, gradient in zip((X, W, V, b), expected, strict=True):
        torch.testing.assert_close(t.grad, gradient)


def test_compiled():
    _same_when_compiled("aot_eager")


@pytest.mark.slow
def test_compiled_to_machine_code():
    _same_when_compiled("inductor")


@pytest.mark.parametrize("n", [0, 9])
def test_no_rows(n):
    X, W, V, b, weight = inputs(torch.float32, n)
    loss = mixture_nll(X, W, V, b, 3, weight)
    loss.backward()
    assert X.grad.shape == (n, 7)
    assert (float(loss.detach()) == 0) == (n == 0)
    assert bool(W.grad.any()) == (n > 0)


def test_layer_trains_what_is_below_it():
    torch.manual_seed(0)
    below, layer = torch.nn.Linear(5, 7), MixtureNLL(2, 4, 3)
    X = torch.randn(200, 5)
    optimiser = torch.optim.Adam([*below.parameters(), *layer.parameters()], lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        losses.append(layer(below(X)))
        losses[-1].backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in below.parameters())
        optimiser.step()
    assert losses[-1] < losses[0] - 0.1


def test_layer_without_context():
    layer = MixtureNLL(2, 4, dtype=torch.float64)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"W": (2, 4), "b": (2,)}
    X, weight = torch.randn(6, 4, dtype=torch.float64), torch.arange(6.0, dtype=torch.float64)
    expected = truth([X, layer.W, None, layer.b, weight], 0)[0]
    assert error(layer(X, weight).detach(), expected) < 1e-14


def test_errors_reach_the_caller():
    with pytest.raises(ValueError, match=r"W: expected shape \(n_components, 4\).*, got shape \(3, 5\)"):
        mixture_nll(torch.zeros(2, 7), torch.zeros(3, 5), n_context_features=3)
    with pytest.raises(ValueError, match="X: expected float16"):
        mixture_nll(torch.zeros(2, 7, dtype=torch.int64), torch.zeros(3, 4), n_context_features=3)


def test_layer_under_numpy_values():
    X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    layer = MixtureNLL(1, 4)
    expected = np.logaddexp(0, -(X @ layer.W.detach().numpy().T)).mean()
    assert float(layer(torch.from_numpy(X)).detach()) == pytest.approx(expected, rel=1e-6)
