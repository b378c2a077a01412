"""Loss and gradient against plain loops over rows and annotators, written from the equations alone."""

from __future__ import annotations

import cmath
import itertools
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micropref._arrays import blocks
from micropref._engine import mean_contexts, mixture_objective
from micropref._engine.gate_objective import GateObjective
from micropref._engine.gates import Gate, flatten, unflatten
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref.kernels._pointwise import log_odds, log_sigmoid, log_softmax, log_sum_exp, posterior, sigmoid, unit_terms

N_DIFFERENCE = 3

# ------------------------------------------------------------------------------------------------- the plain reference


def plain_log_sigmoid(m):
    return -cmath.log(1 + cmath.exp(-m)) if m.real > 0 else m - cmath.log(1 + cmath.exp(m))


def plain_log_sum_exp(values):
    peak = max(v.real for v in values)
    return peak + cmath.log(sum(cmath.exp(v - peak) for v in values))


@dataclass
class Case:
    """Comparisons, parameters and settings of one evaluation of J."""

    context: np.ndarray
    difference: np.ndarray
    n_components: int
    hidden_units: int = 0
    signs: np.ndarray | None = None
    weight: np.ndarray | None = None
    groups: list | None = None
    prior: np.ndarray | None = None
    alpha: float = 0.3
    gate_alpha: float = 0.7
    balance: float = 0.5

    @property
    def gate(self) -> Gate:
        kind = "mlp" if self.hidden_units else "linear"
        return Gate.create(kind, self.context.shape[1], self.n_components, self.hidden_units)

    @property
    def X(self) -> np.ndarray:
        return np.hstack([self.context, self.difference])

    def objective(self, X=None) -> MixtureObjective:
        X = self.X if X is None else X
        groups = check_groups(self.groups, len(X))
        rows = Comparisons(PairReader(X, self.context.shape[1]), self.signs, self.weight, groups)
        penalties = Penalties(self.alpha, self.gate_alpha, self.balance)
        return MixtureObjective(rows, self.gate, penalties, prior_evidence=self.prior)

    def size(self) -> int:
        return sum(int(np.prod(s)) for s in self.objective().shapes)

    def plain_parameters(self, vector):
        """Heads, a function from a context to the log-weights, and the entries that the gate's penalty is on."""
        values = iter(vector)
        k, c, h = self.n_components, self.context.shape[1], self.hidden_units

        def take(n_rows, n_columns):
            return [list(itertools.islice(values, n_columns)) for _ in range(n_rows)]

        def affine(rows, offsets, x):
            return [sum(v * z for v, z in zip(row, x, strict=True)) + b for row, b in zip(rows, offsets, strict=True)]

        heads = take(k, self.difference.shape[1])
        if k == 1:
            return heads, (lambda _: [0j]), []
        into = take(h, c) if h and c else []
        into_offset = take(1, h)[0] if h and c else []
        out = take(k, len(into) or c)
        offsets = take(1, k)[0]
        assert next(values, None) is None

        def logits(x):
            if into:
                x = [u if u.real > 0 else 0 * u for u in affine(into, into_offset, x)]
            return affine(out, offsets, x)

        def log_weights(x):
            values = [complex(v) for v in logits(x)]
            total = plain_log_sum_exp(values)
            return [v - total for v in values]

        return heads, log_weights, list(itertools.chain(*into, *out))

    def reference(self, vector) -> complex:
        """J by the equations, one row and one annotator at a time."""
        heads, log_weights, penalised = self.plain_parameters(vector)
        n = len(self.difference)
        weight = [1.0] * n if self.weight is None else [float(w) for w in self.weight]
        log_likelihoods, negative_entropies = [], []

        def close(c, evidence, outer, mass):
            log_pi = log_weights(c)
            log_likelihoods.append(outer * plain_log_sum_exp([a + b for a, b in zip(log_pi, evidence, strict=True)]))
            negative_entropies.append(mass * sum(cmath.exp(a) * a for a in log_pi))

        members = defaultdict(list)
        for i in range(n):
            margins = [
                (1 if self.signs is None else int(self.signs[i]))
                * sum(w * float(z) for w, z in zip(head, self.difference[i], strict=True))
                for head in heads
            ]
            evidence = [plain_log_sigmoid(complex(m)) for m in margins]
            who = None if self.groups is None else self.groups[i]
            if who is None or who == -1:
                close([float(z) for z in self.context[i]], evidence, weight[i], weight[i])
            else:
                members[who].append((i, evidence))
        for position, who in enumerate(sorted(members)):
            mass = sum(weight[i] for i, _ in members[who])
            mean = [
                sum(weight[i] * float(self.context[i][j]) for i, _ in members[who]) / mass if mass else 0.0
                for j in range(self.context.shape[1])
            ]
            evidence = [sum(weight[i] * e[k] for i, e in members[who]) for k in range(self.n_components)]
            if self.prior is not None:
                evidence = [e + float(p) for e, p in zip(evidence, self.prior[:, position], strict=True)]
            close(mean, evidence, 1.0 if mass else 0.0, mass)
        total = sum(weight)
        value = (-sum(log_likelihoods) + self.balance * sum(negative_entropies)) / total
        value += 0.5 * self.alpha * sum(w * w for head in heads for w in head)
        return value + 0.5 * self.gate_alpha * sum(v * v for v in penalised)

    def reference_slope(self, vector, direction) -> float:
        """Derivative along a direction by a complex step, exact to rounding."""
        step = 1e-30
        return self.reference([complex(v, step * u) for v, u in zip(vector, direction, strict=True)]).imag / step


def make_case(n_components, n_context, hidden_units=0, structure="plain", n=14, seed=0, **changes) -> Case:
    rng = np.random.default_rng([seed, n_components, n_context, hidden_units, n])
    case = Case(
        context=rng.normal(size=(n, n_context)),
        difference=rng.normal(size=(n, N_DIFFERENCE)),
        n_components=n_components,
        hidden_units=hidden_units,
        signs=None if structure == "plain" else rng.choice([-1, 1], size=n).astype(np.int8),
    )
    if "weights" in structure:
        case.weight = rng.exponential(size=n) * (rng.random(n) < 0.8)
    if "groups" in structure:
        case.groups = rng.integers(0, n // 3, size=n).tolist()
    if "mixed" in structure:
        case.groups = np.where(rng.random(n) < 0.4, -1, rng.integers(0, n // 3, size=n)).tolist()
    if "prior" in structure:
        n_groups = len(set(case.groups) - {-1})
        case.prior = rng.normal(size=(n_components, n_groups)) * 3
    return replace(case, **changes)


def make_vector(case: Case, size=0.7, seed=0) -> np.ndarray:
    return np.random.default_rng([7, seed]).normal(size=case.size()) * size


def assert_agrees(case: Case, vector, found, *, value=1e-12, slope=1e-11, n_directions=12):
    got, gradient = found
    assert isinstance(got, float)
    assert gradient.dtype == np.float64
    assert gradient.shape == vector.shape
    want = case.reference([complex(v) for v in vector])
    assert want.imag == 0.0
    assert got == pytest.approx(want.real, rel=value, abs=value)
    rng = np.random.default_rng(3)
    directions = np.eye(len(vector))
    if len(vector) > n_directions:
        directions = rng.normal(size=(n_directions, len(vector))) / np.sqrt(len(vector))
    for direction in directions:
        expected = case.reference_slope(vector, direction)
        size = max(1.0, float(np.linalg.norm(gradient)))
        assert gradient @ direction == pytest.approx(expected, rel=slope, abs=slope * size)


STRUCTURES = ["plain", "signed", "weights", "groups", "groups weights", "mixed", "mixed weights", "mixed weights prior"]
GATES = [(0, 0), (1, 0), (7, 0), (1, 4), (7, 4)]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("n_context", "hidden_units"), GATES)
@pytest.mark.parametrize("n_components", [1, 2, 3, 10])
def test_value_and_gradient_are_the_equations(n_components, n_context, hidden_units, structure):
    case = make_case(n_components, n_context, hidden_units, structure)
    vector = make_vector(case)
    assert_agrees(case, vector, case.objective().value_and_gradient(vector), n_directions=6)


def test_the_random_cases_vary():
    case = make_case(3, 2, 0, "mixed weights prior", n=30)
    for array in (case.context, case.difference, case.weight, case.prior, make_vector(case)):
        assert np.unique(array).size > array.size // 2
    assert set(case.signs) == {-1, 1}
    assert -1 in case.groups
    assert len(set(case.groups)) > 4
    assert (case.weight == 0).any()


@pytest.mark.parametrize(("alpha", "gate_alpha", "balance"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_every_term_by_itself(alpha, gate_alpha, balance):
    case = make_case(3, 2, 3, "mixed weights", alpha=alpha, gate_alpha=gate_alpha, balance=balance)
    vector = make_vector(case)
    assert_agrees(case, vector, case.objective().value_and_gradient(vector), n_directions=100)


def test_offsets_of_the_gate_are_free():
    case = make_case(3, 2, 4, "signed")
    vector = make_vector(case)
    wide, narrow = (replace(case, gate_alpha=a).objective().value_and_gradient(vector)[1] for a in (1.0, 0.0))
    _, into, into_offset, out, offset = unflatten(wide - narrow, case.objective().shapes)
    assert np.abs(into_offset).max() < 1e-15
    assert np.abs(offset).max() < 1e-15
    assert np.abs(into).min() > 1e-4
    assert np.abs(out).min() > 1e-4


# ----------------------------------------------------------------------------------------- layouts, precisions, kinds


def layouts(X):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(2 * len(X), 2 * X.shape[1] + 1))
    wide[::2, 1::2] = X
    yield "strided", wide[::2, 1::2]
    yield "Fortran", np.asfortranarray(X)
    yield "rows reversed", X[::-1].copy()[::-1]
    yield "columns reversed", X[:, ::-1].copy()[:, ::-1]
    read_only = X.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only


@pytest.mark.parametrize("structure", ["signed", "mixed weights"])
@pytest.mark.parametrize("hidden_units", [0, 4])
def test_any_memory_layout(structure, hidden_units):
    case = make_case(3, 2, hidden_units, structure)
    vector = make_vector(case)
    for name, X in layouts(case.X):
        assert np.array_equal(X, case.X), name
        assert_agrees(case, vector, case.objective(X).value_and_gradient(vector), n_directions=3)


PRECISIONS = {"float16": (2e-6, 1e-5), "float32": (2e-6, 1e-5), "float64": (1e-12, 1e-11)}


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", list(PRECISIONS))
@pytest.mark.parametrize("structure", ["weights", "mixed weights prior"])
@pytest.mark.parametrize(("n_context", "hidden_units"), [(0, 0), (2, 0), (2, 4)])
def test_any_precision_of_numpy_and_torch(n_context, hidden_units, structure, dtype, kind):
    stored = make_case(3, n_context, hidden_units, structure)
    X = stored.X.astype(dtype)
    exact = X.astype(np.float64)
    case = replace(stored, context=exact[:, :n_context], difference=exact[:, n_context:])
    vector = make_vector(case)
    objective = case.objective(torch.tensor(X) if kind == "torch" else X)
    value, slope = PRECISIONS[dtype]
    assert_agrees(case, vector, objective.value_and_gradient(vector), value=value, slope=slope, n_directions=5)


@pytest.mark.parametrize("structure", ["weights", "mixed weights prior"])
@pytest.mark.parametrize("hidden_units", [0, 4])
def test_torch_equals_numpy_to_rounding(structure, hidden_units):
    case = make_case(3, 2, hidden_units, structure, n=200)
    vector = make_vector(case)
    value, gradient = case.objective().value_and_gradient(vector)
    same_value, same_gradient = case.objective(torch.tensor(case.X)).value_and_gradient(vector)
    assert same_value == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("structure", ["plain", "weights", "mixed weights prior"])
@pytest.mark.parametrize("size", [1e4, 1e8])
def test_margins_of_any_size(size, structure, kind):
    case = make_case(3, 2, 0, structure, alpha=0.0)
    heads = int(np.prod(case.objective().shapes[0]))
    vector = make_vector(case)
    vector[:heads] *= size
    objective = case.objective(torch.tensor(case.X) if kind == "torch" else case.X)
    value, gradient = objective.value_and_gradient(vector)
    assert np.isfinite(gradient).all()
    assert abs(value) > 100
    assert_agrees(case, vector, (value, gradient), n_directions=6)


# -------------------------------------------------------------------------------------------------------------- blocks


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("structure", ["plain", "weights", "mixed weights prior"])
@pytest.mark.parametrize(("n_context", "hidden_units"), [(0, 0), (2, 0), (2, 4)])
@pytest.mark.usefixtures("small_blocks")
def test_blocks_smaller_than_the_data(n_context, hidden_units, structure, kind):
    case = make_case(2, n_context, hidden_units, structure, n=131)
    X = torch.tensor(case.X) if kind == "torch" else case.X
    objective = case.objective(X)
    assert len(list(objective.rows.reader)) == 3
    vector = make_vector(case)
    assert_agrees(case, vector, objective.value_and_gradient(vector), n_directions=4)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.usefixtures("small_blocks")
def test_margins_computed_twice_instead_of_kept(kind, monkeypatch):
    case = make_case(2, 2, 0, "mixed weights prior", n=131)
    objective = case.objective(torch.tensor(case.X) if kind == "torch" else case.X)
    vector = make_vector(case)
    monkeypatch.setattr(mixture_objective, "_PRODUCT_BYTES", 4 * 2 * 50)
    kept = []
    evidence = objective.evidence
    monkeypatch.setattr(objective, "evidence", lambda heads, keep=None: kept.append(keep) or evidence(heads, keep))
    monkeypatch.setattr(objective, "_in_one_read", lambda: False)
    value, gradient = objective.value_and_gradient(vector)
    monkeypatch.setattr(mixture_objective, "_MARGIN_BYTES", 0)
    same_value, same_gradient = objective.value_and_gradient(vector)
    assert [None if keep is None else len(keep) for keep in kept] == [3, None]
    assert same_value == value
    assert np.array_equal(same_gradient, gradient)
    assert_agrees(case, vector, (same_value, same_gradient), n_directions=4)


def on_disk(path, X) -> np.memmap:
    written = np.memmap(path, dtype=X.dtype, mode="w+", shape=X.shape)
    written[:] = X
    written.flush()
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


@pytest.mark.parametrize("structure", ["mixed", "mixed weights prior"])
@pytest.mark.usefixtures("small_blocks")
def test_mean_contexts_on_disk(structure, tmp_path, monkeypatch):
    case = make_case(2, 5, 4, structure, n=131)
    vector = make_vector(case)
    in_memory = case.objective(on_disk(tmp_path / "x", case.X))
    assert not isinstance(in_memory._unit_contexts.base.base, np.memmap)
    monkeypatch.setattr(mean_contexts, "_CONTEXT_BYTES", 0)
    spilled = case.objective(on_disk(tmp_path / "x", case.X))
    found = spilled.value_and_gradient(vector)
    assert isinstance(spilled._unit_contexts.base, np.memmap)
    np.testing.assert_array_equal(np.asarray(spilled._unit_contexts), np.asarray(in_memory._unit_contexts))
    assert_agrees(case, vector, found, n_directions=4)


def test_mean_contexts_of_an_array_in_memory_stay_there(monkeypatch):
    monkeypatch.setattr(mean_contexts, "_CONTEXT_BYTES", 0)
    contexts = make_case(2, 5, 0, "groups").objective()._unit_contexts
    while contexts is not None:
        assert not isinstance(contexts, np.memmap)
        contexts = contexts.base


@pytest.mark.parametrize("order", ["stored", "scattered"])
def test_a_large_mapped_file_is_read_once_where_units_lie_together(tmp_path, monkeypatch, order):
    monkeypatch.setattr(mixture_objective, "_SCATTERED_BYTES", 0)
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    groups = groups if order == "stored" else rng.permutation(groups)
    weight = np.where(groups % 3 == 0, 0.0, rng.exponential(size=len(groups)))  # units left out, among the others
    X, ids = rng.normal(size=(len(groups), 5)), check_groups(groups, len(groups))
    in_memory, mapped = (
        MixtureObjective(Comparisons(PairReader(values, 2), weight=weight, groups=ids), Gate.create("linear", 2, 3, 1))
        for values in (X, on_disk(tmp_path / "X", X))
    )
    vector = rng.normal(size=sum(int(np.prod(shape)) for shape in mapped.shapes))
    assert in_memory._in_one_read()
    assert mapped._in_one_read() == (order == "stored")
    (value, gradient), expected = mapped.value_and_gradient(vector), in_memory.value_and_gradient(vector)
    assert value == pytest.approx(expected[0], abs=1e-12)
    np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------- properties of J, exact


def structured(draw):
    structure = draw(st.sampled_from(STRUCTURES))
    n_context, hidden_units = draw(st.sampled_from(GATES))
    return make_case(
        draw(st.integers(1, 4)),
        n_context,
        hidden_units,
        structure,
        n=draw(st.integers(9, 20)),
        seed=draw(st.integers(0, 9999)),
    )


cases = st.composite(structured)()


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case, random):
    order = list(range(len(case.X)))
    random.shuffle(order)
    vector = make_vector(case)
    value, gradient = case.objective().value_and_gradient(vector)
    shuffled = replace(
        case,
        context=case.context[order],
        difference=case.difference[order],
        signs=None if case.signs is None else case.signs[order],
        weight=None if case.weight is None else case.weight[order],
        groups=None if case.groups is None else [case.groups[i] for i in order],
    )
    same_value, same_gradient = shuffled.objective().value_and_gradient(vector)
    assert same_value == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=1e-13 * max(1, np.abs(gradient).max()))


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_heads_does_not_matter(case, random):
    order = list(range(case.n_components))
    random.shuffle(order)
    objective = case.objective()
    vector = make_vector(case)

    def permuted(flat):
        parts = unflatten(flat, objective.shapes)
        last = max(1, len(parts) - 2)
        return flatten([p[order] if i == 0 or i >= last else p for i, p in enumerate(parts)])

    value, gradient = objective.value_and_gradient(vector)
    prior = None if case.prior is None else case.prior[order]
    same_value, same_gradient = replace(case, prior=prior).objective().value_and_gradient(permuted(vector))
    assert same_value == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(same_gradient, permuted(gradient), rtol=0, atol=1e-12 * max(1, np.abs(gradient).max()))


@given(cases, st.integers(0, 8))
def test_a_repeated_row_is_a_row_of_twice_the_weight(case, row):
    n = len(case.X)
    weight = np.ones(n) if case.weight is None else case.weight.copy()
    heavy = weight.copy()
    heavy[row] *= 2
    again = [*range(n), row]
    repeated = replace(
        case,
        context=case.context[again],
        difference=case.difference[again],
        signs=None if case.signs is None else case.signs[again],
        weight=weight[again],
        groups=None if case.groups is None else [case.groups[i] for i in again],
    )
    vector = make_vector(case)
    value, gradient = replace(case, weight=heavy).objective().value_and_gradient(vector)
    same_value, same_gradient = repeated.objective().value_and_gradient(vector)
    assert same_value == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=1e-12 * max(1, np.abs(gradient).max()))


@given(cases)
def test_a_row_of_weight_zero_is_an_absent_row(case):
    weight = np.ones(len(case.X)) if case.weight is None else case.weight.copy()
    weight[[0, 3]] = 0.0
    kept = np.flatnonzero(weight > 0)
    present = None if case.groups is None else sorted(set(case.groups) - {-1})
    left = None if case.groups is None else {case.groups[i] for i in kept}
    few = replace(
        case,
        context=case.context[kept],
        difference=case.difference[kept],
        signs=None if case.signs is None else case.signs[kept],
        weight=weight[kept],
        groups=None if case.groups is None else [case.groups[i] for i in kept],
        prior=None if case.prior is None else case.prior[:, [u in left for u in present]],
    )
    vector = make_vector(case)
    value, gradient = replace(case, weight=weight).objective().value_and_gradient(vector)
    same_value, same_gradient = few.objective().value_and_gradient(vector)
    assert same_value == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=1e-12 * max(1, np.abs(gradient).max()))


@given(cases)
def test_groups_of_one_at_unit_weights_are_no_groups(case):
    alone = replace(case, weight=None, prior=None, groups=list(range(len(case.X))))
    vector = make_vector(case)
    value, gradient = replace(alone, groups=None).objective().value_and_gradient(vector)
    same_value, same_gradient = alone.objective().value_and_gradient(vector)
    assert same_value == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=1e-13 * max(1, np.abs(gradient).max()))


@given(cases)
def test_a_label_of_minus_one_is_the_swapped_pair(case):
    signs = np.ones(len(case.X), dtype=np.int8) if case.signs is None else case.signs
    swapped = replace(case, signs=None, difference=case.difference * signs[:, None])
    vector = make_vector(case)
    value, gradient = replace(case, signs=signs).objective().value_and_gradient(vector)
    same_value, same_gradient = swapped.objective().value_and_gradient(vector)
    assert same_value == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=1e-13 * max(1, np.abs(gradient).max()))


def test_groups_matter():
    case = make_case(2, 0, 0, "groups")
    vector = make_vector(case)
    grouped = case.objective().value_and_gradient(vector)[0]
    assert abs(grouped - replace(case, groups=None).objective().value_and_gradient(vector)[0]) > 1e-3


def test_penalties_of_the_flat_vector():
    objective = make_case(2, 3, 4, alpha=5.0, gate_alpha=7.0).objective()
    heads, into, into_offset, out, offset = unflatten(objective.stiffness, objective.shapes)
    assert np.unique(heads) == 5.0
    assert np.unique(into) == np.unique(out) == 7.0
    assert not into_offset.any()
    assert not offset.any()


# ---------------------------------------------------------------------------------------------------- responsibilities


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_responsibilities_of_units(kind):
    case = make_case(3, 2, 0, "mixed weights prior")
    vector = make_vector(case)
    objective = case.objective(torch.tensor(case.X) if kind == "torch" else case.X)
    heads, log_weights, _ = case.plain_parameters([complex(v) for v in vector])
    units = [*sorted(set(case.groups) - {-1}), *(("row", i) for i, u in enumerate(case.groups) if u == -1)]
    expected = []
    for position, unit in enumerate(units):
        rows = [unit[1]] if isinstance(unit, tuple) else [i for i, u in enumerate(case.groups) if u == unit]
        alone = isinstance(unit, tuple)
        mass = sum(case.weight[i] for i in rows)
        share = [case.weight[i] / mass if mass else 0.0 for i in rows]
        context = [sum(s * case.context[i][j] for i, s in zip(rows, share, strict=True)) for j in range(2)]
        joint = []
        for k, log_pi in enumerate(log_weights(context)):
            evidence = 0.0 if alone else float(case.prior[k, position])
            for i in rows:
                margin = case.signs[i] * sum(w * z for w, z in zip(heads[k], case.difference[i], strict=True))
                evidence += (1.0 if alone else case.weight[i]) * plain_log_sigmoid(margin).real
            joint.append(log_pi.real + evidence)
        odds = np.exp(np.array(joint) - max(joint))
        expected.append(odds / odds.sum())
    np.testing.assert_allclose(np.asarray(objective.responsibilities(vector)).T, expected, rtol=1e-11)


# ------------------------------------------------------------------------------------------------ pointwise functions


@given(st.floats(-1e4, 1e4))
def test_sigmoid_and_its_logarithm(margin):
    values = np.array([margin])
    p, q = sigmoid(values)[0], sigmoid(-values)[0]
    assert p + q == pytest.approx(1.0, abs=1e-15)
    assert log_sigmoid(values)[0] == pytest.approx(-np.logaddexp(0, -margin), rel=1e-14, abs=1e-300)
    assert log_sigmoid(values)[0] - log_sigmoid(-values)[0] == pytest.approx(margin, rel=1e-12, abs=1e-15)


def test_extreme_margins_neither_warn_nor_vanish():
    margins = np.array([-1e300, -1e4, 0.0, 1e4, 1e300])
    np.testing.assert_array_equal(log_sigmoid(margins)[[0, 1, 3, 4]], [-1e300, -1e4, 0.0, 0.0])
    np.testing.assert_array_equal(sigmoid(margins), [0.0, 0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_terms_in_single_precision_are_summed_in_double(kind):
    rng = np.random.default_rng(0)
    logits, evidence = rng.normal(size=(2, 3, 1001)).astype(np.float32) - 1000
    outer, mass = rng.exponential(size=(2, 1001)).astype(np.float32)
    loss, _, _ = unit_terms(*map(kind, (logits, evidence, outer, mass)), 0.3)
    log_weights = log_softmax(logits)
    terms = outer * posterior(log_weights, evidence)[0]
    negative_entropies = mass * (np.exp(log_weights) * log_weights).sum(axis=0)
    expected = -terms.sum(dtype=np.float64) + 0.3 * negative_entropies.sum(dtype=np.float64)
    assert abs(-float(terms.sum()) - expected) > 1e-8 * abs(expected)
    assert loss == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 5), st.integers(0, 1000), st.sampled_from([1.0, 30.0, 1e4]))
def test_log_softmax_posterior_and_log_odds(k, seed, size):
    rng = np.random.default_rng(seed)
    logits, margins = rng.normal(size=(2, k, 6)) * size
    log_weights = log_softmax(logits)
    np.testing.assert_allclose(log_sum_exp(log_weights), 0.0, atol=1e-11)
    np.testing.assert_allclose(log_weights, log_softmax(logits + 123.0), atol=1e-9)
    log_likelihood, responsibilities = posterior(log_weights, log_sigmoid(margins))
    np.testing.assert_allclose(responsibilities.sum(axis=0), 1.0, rtol=1e-11)
    assert (log_likelihood <= 1e-12).all()
    odds = log_odds(log_weights, margins)
    assert np.array_equal(odds, -log_odds(log_weights, -margins))
    p = (np.exp(log_weights) * sigmoid(margins)).sum(axis=0)
    between = (p > 1e-9) & (p < 1 - 1e-9)
    np.testing.assert_allclose(odds[between], np.log(p[between]) - np.log1p(-p[between]), rtol=1e-5, atol=1e-9)


# ------------------------------------------------------------------------------------------- the router's objective


@dataclass
class GateCase:
    context: np.ndarray
    evidence: np.ndarray
    offset: np.ndarray
    weight: np.ndarray | None
    hidden_units: int
    alpha: float = 0.4

    def objective(self, as_array=lambda a: a, **kind) -> GateObjective:
        X = as_array(np.hstack([self.context, np.ones((len(self.context), 1))]))
        gate = Gate.create("mlp" if self.hidden_units else "linear", self.context.shape[1], 3, self.hidden_units)
        return GateObjective(
            Comparisons(PairReader(X, self.context.shape[1]), weight=self.weight),
            gate,
            evidence=as_array(self.evidence),
            offset=as_array(self.offset),
            alpha=self.alpha,
        )

    def plain(self, vector):
        """Log-weights f and targets t of every row, and the penalty."""
        case = Case(self.context, np.zeros((len(self.context), 0)), 3, self.hidden_units)
        _, log_gate, penalised = case.plain_parameters(vector)
        weights, targets = [], []
        for i, context in enumerate(self.context):
            logits = [g + self.offset[k, i] for k, g in enumerate(log_gate([float(z) for z in context]))]
            total = plain_log_sum_exp(logits)
            weights.append([v - total for v in logits])
            joint = [a + self.evidence[k, i] for k, a in enumerate(weights[-1])]
            total = plain_log_sum_exp(joint)
            targets.append([total, *(cmath.exp(v - total) for v in joint)])
        return weights, targets, 0.5 * self.alpha * sum(v * v for v in penalised)

    def reference(self, vector):
        _, targets, penalty = self.plain(vector)
        omega = np.ones(len(self.context)) if self.weight is None else self.weight
        return -sum(w * t[0] for w, t in zip(omega, targets, strict=True)) / sum(omega) + penalty

    def reference_cross_entropy(self, vector, fixed):
        weights, _, penalty = self.plain(vector)
        omega = np.ones(len(self.context)) if self.weight is None else self.weight
        total = sum(
            w * sum(t * a for t, a in zip(row, log_f, strict=True))
            for w, row, log_f in zip(omega, fixed, weights, strict=True)
        )
        return -total / sum(omega) + penalty


def make_gate_case(hidden_units, weighted, n=11, seed=0) -> GateCase:
    rng = np.random.default_rng([seed, hidden_units, n])
    weight = rng.exponential(size=n) * (rng.random(n) < 0.8) if weighted else None
    return GateCase(
        rng.normal(size=(n, 2)), log_sigmoid(rng.normal(size=(3, n)) * 3), rng.normal(size=(3, n)), weight, hidden_units
    )


def slopes(function, vector):
    for i in range(len(vector)):
        yield function([complex(v, 1e-30 * (i == j)) for j, v in enumerate(vector)]).imag / 1e-30


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hidden_units", [0, 4])
def test_objective_of_the_router(hidden_units, weighted, kind):
    case = make_gate_case(hidden_units, weighted)
    objective = case.objective(torch.tensor if kind == "torch" else np.asarray)
    size = sum(int(np.prod(s)) for s in objective.gate.shapes)
    vector = np.random.default_rng(1).normal(size=size)
    value, gradient = objective.value_and_gradient(vector)
    assert value == pytest.approx(case.reference([complex(v) for v in vector]).real, rel=1e-12)
    np.testing.assert_allclose(gradient, list(slopes(case.reference, vector)), rtol=1e-9, atol=1e-12)

    fixed = [[v.real for v in row[1:]] for row in case.plain([complex(v) for v in vector])[1]]
    targets = objective.targets(vector)
    np.testing.assert_allclose(np.asarray(targets).T, fixed, rtol=1e-11)
    elsewhere = vector + 0.5 * np.random.default_rng(2).normal(size=size)
    value, slope = objective.cross_entropy(elsewhere, targets)
    plain = lambda v: case.reference_cross_entropy(v, fixed)  # noqa: E731
    assert value == pytest.approx(plain([complex(v) for v in elsewhere]).real, rel=1e-12)
    np.testing.assert_allclose(slope, list(slopes(plain, elsewhere)), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("hidden_units", [0, 4])
def test_a_step_of_hedge_touches_the_objective_and_lies_above_it(hidden_units):
    """Where the targets were taken both have one gradient, and from there J falls at least as fast."""
    case = make_gate_case(hidden_units, True, n=140)
    objective = case.objective()
    rng = np.random.default_rng(4)
    here = rng.normal(size=sum(int(np.prod(s)) for s in objective.gate.shapes))
    value, gradient = objective.value_and_gradient(here)
    targets = objective.targets(here)
    bound, slope = objective.cross_entropy(here, targets)
    np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-12)
    for size in (1e-3, 0.1, 3.0):
        there = here + size * rng.normal(size=here.size)
        rise = objective.cross_entropy(there, targets)[0] - bound
        assert objective.value_and_gradient(there)[0] - value <= rise + 1e-12
