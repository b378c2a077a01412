"""MixtureNLL with groups and balance, as an estimator, and as the last layer of a small transformer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micropref import ContextRouter, MixtureBradleyTerry
from micropref._engine.gates import Gate
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._rows.comparisons import Comparisons
from micropref.kernels import MixtureNLL
from micropref.persistence import load, save

K, C, D = 3, 2, 4


def layer_of(seed=0, k=K, c=C, **settings) -> MixtureNLL:
    torch.manual_seed(seed)
    layer = MixtureNLL(k, D, c, dtype=torch.float64, **settings)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def rows(n, seed=0, c=C):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, c + D, generator=generator, dtype=torch.float64)
    groups = torch.randint(-1, max(1, n // 3), (n,), generator=generator)
    return X, torch.rand(n, generator=generator, dtype=torch.float64) + 0.1, groups


def written_out(X, weight, groups, W, V, b, balance):
    """The objective, unit by unit, as its equation stands."""
    total, loss, entropy = weight.sum(), 0.0, 0.0
    units = [[i] for i, group in enumerate(groups.tolist()) if group == -1]
    units += [np.flatnonzero(groups.numpy() == group).tolist() for group in set(groups.tolist()) - {-1}]
    for unit in units:
        own, mass = X[unit], weight[unit].sum()
        context = (weight[unit, None] * own[:, : X.shape[1] - D]).sum(0) / mass
        logits = b if V is None else V @ context + b
        log_pi = logits - torch.log(torch.exp(logits).sum())
        log_sigma = -torch.log1p(torch.exp(-(own[:, -D:] @ W.T)))
        if groups[unit[0]] == -1:
            loss = loss + mass * torch.log((torch.exp(log_pi) * torch.exp(log_sigma[0])).sum())
        else:
            loss = loss + torch.log((torch.exp(log_pi) * torch.exp((weight[unit, None] * log_sigma).sum(0))).sum())
        entropy = entropy + mass * (torch.exp(log_pi) * log_pi).sum()
    return -loss / total + balance * entropy / total


@pytest.mark.parametrize("c", [0, C])
@pytest.mark.parametrize("k", [1, K])
@pytest.mark.parametrize("balance", [0.0, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradients_are_those_of_the_equation(c, k, balance, seed):
    layer = layer_of(seed, k, c, balance=balance)
    X, weight, groups = rows(23, seed, c)
    upstream = 1.7
    found, expected = [], []
    for ask, gradients in (
        (lambda X: layer(X, weight, groups), found),
        (lambda X: written_out(X, weight, groups, layer.W, layer.V, layer.b, balance), expected),
    ):
        inputs = X.clone().requires_grad_()
        layer.zero_grad()
        loss = ask(inputs)
        (upstream * loss).backward()
        gradients += [loss.detach(), inputs.grad, *(p.grad.clone() for p in layer.parameters())]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert bool(found[1].any())


@pytest.mark.parametrize("balance", [0.0, 0.3])
def test_the_layer_and_the_estimator_minimise_the_same(balance):
    layer, (X, weight, groups) = layer_of(balance=balance), rows(40)
    data = Comparisons.read(
        MixtureBradleyTerry(K, n_context_features=C), X.numpy(), None, weight.numpy(), groups.numpy(), first=True
    )
    objective = MixtureObjective(data, Gate.create("linear", C, K, 0), Penalties(balance=balance))
    parameters = [p.detach().numpy() for p in (layer.W, layer.V, layer.b)]
    vector = np.concatenate([p.ravel() for p in parameters])
    value, gradient = objective.value_and_gradient(vector)
    loss = layer(X, weight, groups)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(
        np.concatenate([p.grad.numpy().ravel() for p in (layer.W, layer.V, layer.b)]), gradient, rtol=1e-7, atol=1e-10
    )


@given(seed=st.integers(0, 99), n=st.integers(1, 12))
def test_groups_of_one_and_none_are_rows(seed, n):
    layer, (X, weight, _) = layer_of(seed), rows(n, seed)
    plain = layer(X, weight)
    torch.testing.assert_close(layer(X, weight, torch.full((n,), -1)), plain)
    torch.testing.assert_close(layer(X, None, torch.arange(n)), layer(X))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    groups = rows(n, seed)[2]
    torch.testing.assert_close(layer(X[order], weight[order], groups[order]), layer(X, weight, groups))


def test_a_row_repeated_is_weight_two():
    layer, (X, _, groups) = layer_of(balance=0.2), rows(9)
    twice = torch.cat([torch.arange(9), torch.tensor([4, 5])])
    weight = torch.ones(9, dtype=torch.float64)
    weight[[4, 5]] = 2.0
    torch.testing.assert_close(layer(X[twice], None, groups[twice]), layer(X, weight, groups))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype):
    layer, (X, weight, groups) = layer_of(balance=0.2), rows(60)
    low = MixtureNLL(K, D, C, balance=0.2, dtype=dtype)
    low.load_state_dict({name: value.to(dtype) for name, value in layer.state_dict().items()})
    same = MixtureNLL(K, D, C, balance=0.2, dtype=torch.float64)
    same.load_state_dict({name: value.double() for name, value in low.state_dict().items()})
    loss = low(X.to(dtype), weight.to(dtype), groups)
    assert loss.dtype == torch.float32
    expected = same(X.to(dtype).double(), weight.to(dtype).double(), groups)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=1e-6)
    assert low.to_estimator().coef_.dtype == np.float32


def test_extreme_margins_and_no_rows():
    layer = layer_of(balance=0.1)
    X = torch.full((4, C + D), 1e6, dtype=torch.float64, requires_grad=True)
    loss = layer(X, None, [0, 0, 1, -1])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(X.grad).all()
    assert float(layer(X[:0], None, []).detach()) == 0.0
    assert float(layer(X, torch.zeros(4, dtype=torch.float64), [0, 0, 1, -1]).detach()) == 0.0


@pytest.mark.parametrize(
    "groups", [["ann", "bob"], [0.5, 1.0], [True, False], [0], torch.zeros(2, 1, dtype=torch.long), [None, 1]]
)
def test_groups_that_are_no_integers(groups):
    with pytest.raises(ValueError, match="groups: expected integers"):
        layer_of()(torch.zeros(2, C + D), None, groups)


def test_what_is_refused():
    for balance in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="balance: expected a finite number from 0"):
            MixtureNLL(2, 3, balance=balance)
    with pytest.raises(ValueError, match=r"W: expected shape \(n_components, 5\)"):
        layer_of()(torch.zeros(2, C + D + 1), None, [0, 0])


# ------------------------------------------------------------------------------------------------------- to_estimator


@pytest.mark.parametrize(("k", "c"), [(1, 0), (1, C), (K, 0), (K, C)])
def test_the_estimator_answers_as_the_layer(k, c, tmp_path):
    layer, (X, _, groups) = layer_of(1, k, c), rows(30, 1, c)
    mixture = layer.to_estimator(X)
    loss = float(layer(X, None, groups).detach())
    assert mixture.log_likelihood(X.numpy(), groups=groups.numpy()) == pytest.approx(-loss)
    np.testing.assert_allclose(mixture.weights_, mixture.mixture_weights(X.numpy()).mean(axis=0))
    assert mixture.objective_ == pytest.approx(float(layer(X).detach()))
    np.testing.assert_array_equal(mixture.coef_, layer.W.detach().numpy())
    save(mixture, tmp_path / "heads")
    np.testing.assert_array_equal(load(tmp_path / "heads").predict_proba(X.numpy()), mixture.predict_proba(X.numpy()))
    np.testing.assert_array_equal(layer.to_estimator().predict_proba(X.numpy()), mixture.predict_proba(X.numpy()))


def test_the_estimator_is_a_copy_and_can_be_routed_and_fitted_again():
    layer, (X, _, groups) = layer_of(c=0), rows(60, c=0)
    mixture = layer.to_estimator()
    before = mixture.coef_.copy()
    with torch.no_grad():
        layer.W.zero_()
    np.testing.assert_array_equal(mixture.coef_, before)
    router = ContextRouter(mixture).partial_fit(X.numpy(), groups=groups.numpy())
    assert np.isfinite(router.predict_proba(X.numpy(), groups=groups.numpy())).all()
    assert mixture.n_components == K
    mixture.fit(X.numpy(), groups=groups.numpy())
    assert mixture.alpha_ > 0
