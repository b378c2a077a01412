"""Displays: they show the numbers they were given, with labels and units, on given or new axes."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from scipy.special import expit

from micropref import ContextRouter, MixtureBradleyTerry
from micropref.plotting import (
    BoundsDisplay,
    CalibrationDisplay,
    ComponentsDisplay,
    ErrorDecompositionDisplay,
    HeadsByAttributeDisplay,
    LabelBudgetDisplay,
    RouterWeightsDisplay,
)
from micropref.selection import ComponentSelection
from micropref.theory import IrreducibleErrorBounds, error_decomposition, estimate_irreducible_error, sweep_error


@pytest.fixture(autouse=True)
def no_window():
    from matplotlib import pyplot

    mpl.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def world():
    """Two groups of annotators told apart by two context columns; heads of stage 1 and a router."""
    rng = np.random.default_rng(0)
    n = 600
    kind = np.arange(n) // 5 % 2
    context = np.eye(2)[kind] + 0.2 * rng.normal(size=(n, 2))
    difference = rng.normal(size=(n, 3))
    truth = np.array([[3.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    y = (rng.uniform(size=n) < expit((difference * truth[kind]).sum(axis=1))).astype(int)
    groups = np.arange(n) // 5
    mixture = MixtureBradleyTerry(2, random_state=0).fit(difference, y, groups=groups)
    X = np.hstack([context, difference])
    router = ContextRouter(mixture, n_context_features=2).fit(X[:100], y[:100])
    names = np.array(["long", "short"])[kind]
    return SimpleNamespace(X=X, D=difference, y=y, groups=groups, mixture=mixture, router=router, names=names)


def heights(ax):
    return np.array([[patch.get_height() for patch in bars] for bars in ax.containers if hasattr(bars, "patches")])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_terms_are_stacked(world):
    sweep = sweep_error("diversity", [0.1, 0.5])
    display = ErrorDecompositionDisplay.from_sweep(sweep)
    terms = [[t.label_noise for t in sweep.terms], [t.group_information for t in sweep.terms]]
    terms.append([t.misspecification for t in sweep.terms])
    np.testing.assert_allclose(heights(display.ax_), terms)
    tops = [patch.get_y() + patch.get_height() for patch in display.ax_.containers[2].patches]
    np.testing.assert_allclose(tops, [t.cross_entropy for t in sweep.terms])
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["0.1", "0.5"]
    assert "ρ" in display.ax_.get_xlabel()
    assert "nats" in display.ax_.get_ylabel()


def test_terms_of_data_have_their_intervals(world):
    display = ErrorDecompositionDisplay.from_estimator(world.mixture, world.D, world.y, world.groups, n_bootstrap=20)
    expected = estimate_irreducible_error(world.mixture, world.D, world.y, world.groups, n_bootstrap=20)
    assert display.terms == [expected]
    caps = sorted(float(line.get_ydata()[0]) for line in display.ax_.lines if len(line.get_ydata()) == 1)
    low, high = expected.label_noise_interval
    assert min(abs(cap - low) for cap in caps) < 1e-9
    assert min(abs(cap - high) for cap in caps) < 1e-9


def test_terms_of_a_population():
    display = ErrorDecompositionDisplay.from_predictions([0.5, 0.5], [[0.9, 0.1]], [0.5])
    found = error_decomposition([0.5, 0.5], [[0.9, 0.1]], [0.5])
    np.testing.assert_allclose(heights(display.ax_)[:, 0], [found.label_noise, found.group_information, 0], atol=1e-12)


def test_terms_and_labels_must_agree():
    with pytest.raises(ValueError, match="expected one for each of at least one term, got 0 terms and 0 labels"):
        ErrorDecompositionDisplay([], [])


def test_bounds_and_what_each_step_gives_away():
    display = BoundsDisplay(IrreducibleErrorBounds(0.4, 0.3, 0.1, 0.0, 0.5)).plot()
    widths = [patch.get_width() for bars in display.ax_.containers for patch in bars.patches]
    np.testing.assert_allclose(widths, [0.4, 0.3, 0.1, 0.1, 0.2, 0.0, 0.1])
    assert [text.split()[0] for text in texts(display.ax_)] == ["0.400", "0.300", "0.100", "0.000"]
    assert "Jensen −0.200" in texts(display.ax_)[2]


def test_bounds_without_prompts_and_of_a_fit(world):
    assert len(texts(BoundsDisplay.from_predictions([0.5, 0.5], [[0.9, 0.1]]).ax_)) == 2
    display = BoundsDisplay.from_estimator(world.mixture, world.D, prompt=np.arange(len(world.D)) // 2)
    assert 0 < display.bounds.theorem_3_2 < display.bounds.averaged < display.bounds.information


def test_weights_are_means_of_the_rows_of_a_context(world):
    display = RouterWeightsDisplay.from_estimator(world.router, world.X, world.names)
    weights = world.router.mixture_weights(world.X)
    for name, row, n in zip(display.contexts, display.weights, display.n_rows, strict=True):
        np.testing.assert_allclose(row, weights[world.names == name].mean(axis=0))
        assert n == (world.names == name).sum()
    assert display.contexts == ["long", "short"]
    np.testing.assert_allclose(sum(p.get_width() for bars in display.ax_.containers for p in bars), 2.0)
    votes = ContextRouter(world.mixture).partial_fit(world.D[:10], world.y[:10], groups=["ann"] * 10)
    known = RouterWeightsDisplay.from_estimator(votes, world.D, world.names, groups=["ann"] * len(world.D))
    assert known.weights.max() > RouterWeightsDisplay.from_estimator(votes, world.D, world.names).weights.max()


def test_weights_of_no_rows():
    with pytest.raises(ValueError, match="not empty"):
        RouterWeightsDisplay.from_predictions(np.empty((0, 2)), [])


def test_heads_by_attribute(world):
    display = HeadsByAttributeDisplay.from_estimator(world.mixture, world.D, world.y, attributes=world.names)
    signed = world.mixture.component_scores(world.D) * (2 * world.y - 1)[:, None]
    for name, row in zip(display.attributes, display.accuracy, strict=True):
        np.testing.assert_allclose(row, (signed[world.names == name] > 0).mean(axis=0))
    assert texts(display.ax_) == [f"{value:.2f}" for value in display.accuracy.ravel()]
    assert display.accuracy.max(axis=1).min() > 0.75
    assert HeadsByAttributeDisplay.from_predictions([[1.0, 0.0]], attributes=["a"]).accuracy.tolist() == [[1.0, 0.5]]
    with pytest.raises(ValueError, match="not empty"):
        HeadsByAttributeDisplay.from_predictions([[1.0]], attributes=["a", "b"])


def test_calibration_does_not_ask_who_is_first(world):
    display = CalibrationDisplay.from_estimator(world.router, world.X, world.y)
    p = world.router.predict_proba(world.X)[:, 1]
    mirrored = CalibrationDisplay.from_predictions(1 - p, 1 - world.y, ax=display.ax_)
    np.testing.assert_allclose(display.confidence, mirrored.confidence, atol=1e-7)
    np.testing.assert_allclose(display.accuracy, mirrored.accuracy, atol=1e-7)
    assert display.n_rows.sum() == len(p)
    assert mirrored.ax_ is display.ax_
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[0] == "as often as said"
    assert labels[1].startswith("ContextRouter (calibration error 0.0")


def test_calibration_error_by_hand():
    display = CalibrationDisplay.from_predictions([0.9, 0.1, 0.9, 0.9], [1, 0, 1, 0])
    assert display.confidence.tolist() == pytest.approx([0.9])
    assert display.accuracy.tolist() == [0.75]
    assert display.error == pytest.approx(0.15)
    assert CalibrationDisplay.from_predictions([0.5, 0.5], [1, 0]).accuracy.tolist() == [0.5]
    with pytest.raises(ValueError, match=r"probs: expected probabilities in \[0, 1\], got 1\.2 in row 1"):
        CalibrationDisplay.from_predictions([0.5, 1.2])
    with pytest.raises(ValueError, match=r"probs: expected shape \(n_samples,\) .* got shape \(1, 1\)"):
        CalibrationDisplay.from_predictions([[0.5]])


def test_budget_curve(world):
    given = {"contexts": world.names[:300], "X_test": world.X[300:], "y_test": world.y[300:]}
    display = LabelBudgetDisplay.from_estimator(
        world.router, world.X[:300], world.y[:300], budgets=(1, 20), n_draws=3, references={"coin": 0.5}, **given
    )
    curve = display.curves["ContextRouter"]
    assert curve.shape == (3, 2)
    assert curve[:, 1].mean() > 0.8
    assert curve[:, 1].mean() > curve[:, 0].mean() - 0.02
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata(), curve.mean(axis=0))
    again = LabelBudgetDisplay.from_estimator(
        world.router, world.X[:300], world.y[:300], budgets=(1, 20), n_draws=3, **given
    )
    np.testing.assert_array_equal(again.curves["ContextRouter"], curve)
    with pytest.raises(ValueError, match=r"budgets: expected numbers between 1 and .*, got \[10000\]"):
        LabelBudgetDisplay.from_estimator(world.router, world.X[:300], world.y[:300], budgets=(10_000,), **given)
    with pytest.raises(ValueError, match="curve 'a': expected 2 values, one for each budget, got 3"):
        LabelBudgetDisplay.from_predictions([1, 2], {"a": [0.1, 0.2, 0.3]})
    assert LabelBudgetDisplay.from_predictions([1, 2], {"a": [0.1, 0.2]}).curves["a"].shape == (1, 2)


def test_budget_labels_come_from_their_own_rows(world, monkeypatch):
    """As many of each context, and the larger budget of a draw contains the smaller."""
    fitted = []
    original = ContextRouter.fit

    def watched(self, X, y=None, **more):
        fitted.append(X)
        return original(self, X, y, **more)

    monkeypatch.setattr(ContextRouter, "fit", watched)
    LabelBudgetDisplay.from_estimator(
        world.router, world.X[:300], world.y[:300], contexts=world.names[:300], X_test=world.X[300:],
        y_test=world.y[300:], budgets=(2, 5), n_draws=1,
    )  # fmt: skip
    where = [[int(np.flatnonzero((row == world.X).all(axis=1))[0]) for row in X] for X in fitted]
    assert [len(rows) for rows in where] == [4, 10]
    assert set(where[0]) < set(where[1])
    assert max(where[1]) < 300
    assert sorted(world.names[where[0]]) == ["long", "long", "short", "short"]


def test_number_of_heads(world):
    display = ComponentsDisplay.from_estimator(
        MixtureBradleyTerry(random_state=0, n_init=1), world.D, world.y, groups=world.groups, candidates=(2, 1), cv=3
    )
    folds = display.selection.fold_log_likelihood
    line = display.ax_.lines[0]
    assert line.get_xdata().tolist() == [1, 2]
    np.testing.assert_allclose(line.get_ydata(), [0.0, (folds[0] - folds[1]).mean()])
    assert display.ax_.get_legend().get_texts()[0].get_text() == "K = 2 chosen"


def test_the_fewest_within_one_standard_error_are_shown(world):
    folds = np.array([[-0.70, -0.66], [-0.52, -0.50], [-0.51, -0.49]])
    mean, error = folds.mean(axis=1), np.array([0.01, 0.02, 0.0])
    selection = ComponentSelection(3, np.array([1, 2, 3]), mean, error, folds, None)
    display = ComponentsDisplay.from_selection(selection)
    chosen, fewest = display.ax_.get_legend().get_texts()
    assert chosen.get_text() == "K = 3 chosen"
    assert fewest.get_text() == "K = 2 fewest within one standard error of the best"
    assert [line.get_xdata() for line in display.ax_.lines[-2:]] == [[3, 3], [2, 2]]
    cautious = ComponentsDisplay.from_selection(ComponentSelection(2, np.array([1, 2, 3]), mean, error, folds, None))
    assert [text.get_text() for text in cautious.ax_.get_legend().get_texts()] == ["K = 2 chosen"]


def test_given_axes_are_used(world):
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    display = HeadsByAttributeDisplay.from_estimator(world.mixture, world.D, world.y, attributes=world.names, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
