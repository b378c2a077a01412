"""Everything that can be fitted on a device, on the one there is: CUDA where a card is, else torch on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import DEVICE

from micropref import ContextInteractions, ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, PairScaler
from micropref.baselines import UserRewards
from micropref.kernels import MixtureNLL
from micropref.persistence import load, save

C, D, K, PAIRS = 4, 4, 2, 5


def world(seed: int = 0, n: int = 600):
    """Annotators of two opposite tastes; their context says which, with noise. float32."""
    rng = np.random.default_rng(seed)
    annotator = np.arange(n) // PAIRS
    taste = np.where(annotator % 3 == 0, -1.0, 1.0)
    context = np.outer(taste, [1.0, -0.5, 0.0, 0.0]) + 0.5 * rng.normal(size=(n, C))
    difference = rng.normal(size=(n, D))
    margins = 2.0 * taste * (difference[:, 0] + 0.5 * difference[:, 1]) + 0.7 * difference[:, 2]
    y = (rng.random(n) < 1 / (1 + np.exp(-margins))).astype(int)
    return np.hstack([context, difference]).astype(np.float32), y, annotator, rng.uniform(0.5, 2, n)


def there(array, dtype=torch.float32):
    return torch.tensor(array, device=DEVICE).to(dtype)


@pytest.mark.parametrize(
    ("c", "gate", "grouped", "dtype"),
    [
        (0, "linear", False, torch.float16),
        (0, "linear", True, torch.float32),
        (C, "linear", False, torch.float32),
        (C, "linear", False, torch.bfloat16),
        (C, "linear", True, torch.float64),
        (C, "linear", True, torch.float16),
        (C, "mlp", False, torch.float32),
        (C, "mlp", True, torch.float64),
    ],
)
def test_a_mixture_learns_there_what_it_learns_in_numpy(c, gate, grouped, dtype):
    X, y, annotator, weight = world()
    X = X[:, C - c :]
    stored = there(X, dtype)
    X = stored.double().cpu().numpy()
    groups = annotator if grouped else None
    settings = {"n_components": K, "n_context_features": c, "gate": gate, "hidden_units": 4, "alpha": 0.05}
    settings |= {"gate_alpha": 0.05, "balance": 0.1, "max_iter": 2000, "n_init": 1, "random_state": 0}
    ours = MixtureBradleyTerry(**settings).fit(X, y, sample_weight=weight, groups=groups)
    theirs = MixtureBradleyTerry(**settings).fit(stored, y, sample_weight=weight, groups=groups)
    assert theirs.objective_ == pytest.approx(ours.objective_, abs=1e-8 if dtype == torch.float64 else 1e-4)
    found = theirs.predict_proba(stored)
    assert found.device == stored.device
    # A gate of hidden units may end in another of several minima of nearly the same height.
    tolerance = 1e-5 if dtype == torch.float64 else 2e-2 if gate == "mlp" else 2e-3
    np.testing.assert_allclose(found.cpu().numpy(), ours.predict_proba(X), atol=tolerance)
    for name in ("decision_function", "component_scores", "mixture_weights"):
        assert getattr(theirs, name)(stored).device == stored.device
    assert theirs.rewards(stored[:, c:]).device == stored.device
    assert theirs.score(stored, y) == pytest.approx(ours.score(X, y), abs=0.01)
    assert isinstance(theirs.coef_, np.ndarray)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_same_bits_every_time(grouped):
    X, y, annotator, weight = world()
    groups = annotator if grouped else None
    models = [
        MixtureBradleyTerry(K, n_context_features=C, n_init=2, random_state=0, device=DEVICE).fit(X, y, weight, groups)
        for _ in range(2)
    ]
    assert np.array_equal(models[0].coef_, models[1].coef_)
    assert models[0].objective_ == models[1].objective_


def test_device_moves_arrays_there_and_answers_in_numpy(tmp_path):
    X, y, annotator, _ = world()
    model = MixtureBradleyTerry(K, n_context_features=C, random_state=0, device=DEVICE)
    model.fit(X, y, groups=annotator)
    assert isinstance(model.predict_proba(X), np.ndarray)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_stream_learns_there_what_it_learns_in_numpy():
    X, y, annotator, _ = world()
    streams = [MixtureBradleyTerry(K, n_context_features=C, random_state=0, device=device) for device in (None, DEVICE)]
    for stream in streams:
        for start in range(0, len(X), 200):
            rows = slice(start, start + 200)
            stream.partial_fit(X[rows], y[rows], groups=annotator[rows])
    np.testing.assert_allclose(streams[1].predict_proba(X), streams[0].predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn"])
@pytest.mark.parametrize("solver", ["direct", "hedge"])
def test_a_router_learns_there_what_it_learns_in_numpy(gate, solver):
    X, y, annotator, _ = world()
    heads = MixtureBradleyTerry(K, n_init=2, random_state=0).fit(X[:, C:], y, groups=annotator)
    settings = {"gate": gate, "solver": solver, "hidden_units": 4, "random_state": 0}
    ours = ContextRouter(heads, **settings).fit(X[:300], y[:300])
    theirs = ContextRouter(heads, device=DEVICE, **settings).fit(X[:300], y[:300])
    stored = there(X)
    found = theirs.predict_proba(stored)
    assert found.device == stored.device
    if gate == "mlp":  # single precision may end in another minimum of nearly the same height
        assert theirs.objective_ == pytest.approx(ours.objective_, abs=1e-3)
        return
    np.testing.assert_allclose(found.cpu().numpy(), ours.predict_proba(X), atol=5e-3)
    users = annotator[:20]
    theirs.partial_fit(stored[:20], y[:20], groups=users)
    ours.partial_fit(X[:20], y[:20], groups=users)
    np.testing.assert_allclose(
        theirs.predict_proba(stored[:40], groups=annotator[:40]).cpu().numpy(),
        ours.predict_proba(X[:40], groups=annotator[:40]),
        atol=5e-3,
    )


@pytest.mark.parametrize("estimator", [HierarchicalBradleyTerry(random_state=0), UserRewards()], ids=["users", "rival"])
def test_estimators_of_numpy_take_tensors_from_there(estimator):
    X, y, annotator, _ = world(n=600)
    stored = there(X[:, C:])
    ours = estimator.fit(X[:, C:], y, groups=annotator).predict_proba(X[:50, C:])
    theirs = estimator.fit(stored, y, groups=annotator).predict_proba(stored[:50])
    theirs = theirs.cpu().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


@pytest.mark.parametrize(
    "transformer",
    [PairScaler(n_context_features=C), ContextInteractions(n_context_features=C)],
    ids=["scaler", "interactions"],
)
def test_transformers_keep_tensors_there(transformer):
    X, _, _, _ = world(n=200)
    ours = transformer.fit(X).transform(X)
    stored = there(X)
    theirs = transformer.fit(stored).transform(stored)
    assert theirs.device == stored.device
    np.testing.assert_allclose(theirs.cpu().numpy(), ours, atol=2e-4)


def test_a_layer_trains_what_is_below_it_there():
    torch.manual_seed(0)
    below, layer = torch.nn.Linear(5, C + D).to(DEVICE), MixtureNLL(K, D, C).to(DEVICE)
    X = torch.randn(300, 5, device=DEVICE)
    optimiser = torch.optim.Adam([*below.parameters(), *layer.parameters()], lr=0.05)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        losses.append(layer(below(X)))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.1
