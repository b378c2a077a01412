"""Gates: shapes, starts, and the packing of their parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from micropref._engine.gates import GATES, Gate, flatten, unflatten


@pytest.mark.parametrize(
    ("kind", "n_inputs", "n_components", "shapes"),
    [
        ("linear", 5, 3, ((3, 5), (3,))),
        ("linear", 0, 3, ((3,),)),
        ("linear", 5, 1, ()),
        ("mlp", 5, 3, ((7, 5), (7,), (3, 7), (3,))),
        ("mlp", 0, 3, ((3,),)),
        ("mlp", 5, 1, ()),
    ],
)
def test_shapes_penalties_and_starts(kind, n_inputs, n_components, shapes):
    gate = Gate.create(kind, n_inputs, n_components, 7)
    assert gate.shapes == shapes
    assert gate.penalties(0.5) == [0.5 if len(shape) == 2 else 0.0 for shape in shapes]
    start = gate.initial(np.random.RandomState(0))
    assert tuple(p.shape for p in start) == shapes
    assert all(not p.any() for p in start if p.ndim == 1)
    if len(shapes) == 2:
        assert not start[0].any()
    elif len(shapes) == 4:
        assert np.unique(start[0]).size == 35
        assert np.unique(start[2]).size == 21


@pytest.mark.parametrize("as_array", [np.asarray, torch.tensor])
@pytest.mark.parametrize("n_inputs", [0, 2])
def test_equal_weights_before_learning_unless_hidden(n_inputs, as_array):
    for kind in GATES:
        gate = Gate.create(kind, n_inputs, 3, 4)
        parameters = [as_array(p) for p in gate.initial(np.random.RandomState(1))]
        logits, hidden = gate.logits(parameters, as_array(np.ones((5, n_inputs))))
        assert tuple(logits.shape) == (3, 5)
        if hidden is None:
            assert not np.asarray(logits).any()
        else:
            assert (np.asarray(hidden) >= 0).all()
    lone = Gate.create("linear", n_inputs, 1, 4)
    logits, hidden = lone.logits([], as_array(np.ones((5, n_inputs))))
    assert np.asarray(logits).tolist() == [[0.0] * 5]
    assert lone.gradient([], as_array(np.ones((5, n_inputs))), hidden, logits) == []


def test_bad_gates():
    with pytest.raises(ValueError, match="gate: expected one of 'linear', 'mlp', got 'knn'"):
        Gate.create("knn", 2, 2, 3)
    with pytest.raises(ValueError, match="hidden_units: expected at least 1, got 0"):
        Gate.create("mlp", 2, 2, 0)


@pytest.mark.parametrize("shapes", [(), ((2, 3),), ((2, 3), (2,), (4, 1), (1,))])
def test_flatten_and_unflatten(shapes):
    rng = np.random.default_rng(0)
    parameters = [rng.normal(size=shape) for shape in shapes]
    vector = flatten(parameters)
    assert vector.dtype == np.float64
    assert vector.ndim == 1
    for part, parameter in zip(unflatten(vector, shapes), parameters, strict=True):
        assert np.array_equal(part, parameter)
        assert np.shares_memory(part, vector)
