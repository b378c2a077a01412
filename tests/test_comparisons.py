"""Comparisons: numbers of any size, and arguments of any kind, give what plain arrays give, or an error that says why.

The grids of this file are the rule of the house for extreme numbers: a result is finite and that of the same problem in
usual units, or a ValueError names what is out of range. It is never NaN, infinite, or a warning alone.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from micropref import ContextRouter, MixtureBradleyTerry, PairScaler

N, C, D = 60, 2, 3
GROUPS = np.arange(N) // 4


def world(seed=0):
    rng = np.random.default_rng(seed)
    difference = rng.normal(size=(N, D))
    y = (difference[:, 0] * np.where(GROUPS % 2, -3, 3) + 0.3 * rng.normal(size=N) > 0).astype(int)
    context = np.eye(C)[GROUPS % 2] + 0.1 * rng.normal(size=(N, C))
    return np.hstack([context, difference]), y


X, Y = world()
HEADS = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(X[:, C:], Y, groups=GROUPS)


def mixture(**parameters):
    settings = {"n_context_features": C, "n_init": 1, "hidden_units": 4, "random_state": 0, **parameters}
    return MixtureBradleyTerry(2, **settings)


def router(**parameters):
    return ContextRouter(HEADS, **{"hidden_units": 4, "random_state": 0, **parameters})


def fit_mixture(model, X, **arguments):
    return model.fit(X, Y, groups=GROUPS, **arguments)


def fit_rows(model, X, **arguments):
    return model.fit(X, Y, **arguments)


def stream_mixture(model, X, **arguments):
    return model.partial_fit(X, Y, groups=GROUPS, **arguments).partial_fit(X, Y, groups=GROUPS, **arguments)


def stream_router(model, X, **arguments):
    return model.partial_fit(X, Y, **arguments).partial_fit(X, Y, groups=GROUPS, **arguments)


LEARNERS = {
    "mixture": (mixture, fit_rows),
    "mixture, groups": (mixture, fit_mixture),
    "mixture, mlp": (lambda **p: mixture(gate="mlp", **p), fit_rows),
    "mixture, stream": (mixture, stream_mixture),
    "mixture, mlp stream": (lambda **p: mixture(gate="mlp", **p), stream_mixture),
    "router": (router, fit_rows),
    "router, mlp": (lambda **p: router(gate="mlp", **p), fit_rows),
    "router, knn": (lambda **p: router(gate="knn", **p), fit_rows),
    "router, hedge": (lambda **p: router(solver="hedge", n_iter=2, **p), fit_rows),
    "router, stream": (router, stream_router),
    "router, knn stream": (lambda **p: router(gate="knn", **p), stream_router),
}


def finite_or_refused(work, names):
    """What `work` gives, or None where it raises a ValueError that holds one of the names; a warning is an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "(one head has a|.* heads have) weight", UserWarning)
            # Penalties of any size are tried here: some leave nothing of the data, some hold nothing back.
            warnings.filterwarnings("ignore", "alpha=.* is so strong|the model can predict every", UserWarning)
            return work()
    except ValueError as error:
        message = str(error)
    assert any(name in message for name in names), message
    return None


def answers(model, X, **arguments):
    """All that the model says of these rows; an AssertionError where a number is not finite."""
    given = {"groups": GROUPS} if isinstance(model, ContextRouter) else {}
    found = {
        "decision_function": model.decision_function(X, **given),
        "predict_proba": model.predict_proba(X, **given),
        "mixture_weights": model.mixture_weights(X, **given),
        "log_likelihood": model.log_likelihood(X, Y, **arguments),
        "score": model.score(X, Y, **arguments),
        "objective": getattr(model, "objective_", 0.0),
    }
    if isinstance(model, MixtureBradleyTerry):
        found["grouped log_likelihood"] = model.log_likelihood(X, Y, groups=GROUPS, **arguments)
        found["responsibilities"] = model.responsibilities(X, Y, groups=GROUPS)
    for name, value in found.items():
        assert np.isfinite(np.asarray(value, dtype=float)).all(), name
    np.testing.assert_allclose(np.sum(np.asarray(found["predict_proba"]), axis=1), 1.0, rtol=1e-6)
    return found


def scaled(of_context, of_difference, dtype="float64"):
    with np.errstate(all="ignore"):
        return (X * np.repeat([of_context, of_difference], [C, D])).astype(dtype)


SIZES = [
    *(("float64", 10.0**e) for e in (-320, -162, -101, -99, -20, 20, 99, 101, 160, 300)),
    *(("float32", 10.0**e) for e in (-44, -26, -24, 10, 24, 26, 37)),
    *(("float16", 10.0**e) for e in (-6, -2, 4)),
]
EXTREME = [
    ("float64", 1e-320),
    ("float64", 1e99),
    ("float64", 1e307),
    ("float32", 1e-44),
    ("float32", 1e24),
    ("float32", 1e38),
]
IN_RANGE = {"float64": (1e-100, 1e100), "float32": (1e-25, 1e25), "float16": (0.0, 1e5)}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("block", ["context", "difference"])
def test_features_of_any_size_are_learned_or_refused(learner, block):
    create, learn = LEARNERS[learner]
    for dtype, size in SIZES:
        rows = scaled(size, 1.0, dtype) if block == "context" else scaled(1.0, size, dtype)

        def work(rows=rows):
            model = learn(create(), rows)
            return answers(model, rows)

        found = finite_or_refused(work, [f"expected {block}s with a root mean square norm of at least"])
        least, most = IN_RANGE[dtype]
        assert (found is not None) == (least <= size <= most), (dtype, size)


@pytest.mark.parametrize("learner", ["mixture", "mixture, groups", "mixture, stream", "router"])
@pytest.mark.parametrize(("dtype", "size"), [s for s in SIZES if IN_RANGE[s[0]][0] <= s[1] <= IN_RANGE[s[0]][1]])
def test_other_units_are_the_same_problem(learner, dtype, size):
    """Features s times as large under penalties s² times as large have the same predictions."""
    if dtype == "float16" and size < 1e-3:
        return  # entries have lost digits
    create, learn = LEARNERS[learner]
    is_router = learner == "router"
    of_difference = 1.0 if is_router else size
    penalties = {"alpha": 1e-3 * size**2} | ({} if is_router else {"gate_alpha": 1e-3 * size**2})
    if max(penalties.values()) > 1e20:
        penalties = dict.fromkeys(penalties, 0.0)
    at_usual = {name: value / size**2 for name, value in penalties.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        usual = answers(learn(create(**at_usual), scaled(1.0, 1.0, dtype)), scaled(1.0, 1.0, dtype))
        rows = scaled(size, of_difference, dtype)
        found = answers(learn(create(**penalties), rows), rows)
    tolerance = {"float64": 1e-4, "float32": 5e-3, "float16": 1e-2}[dtype]
    np.testing.assert_allclose(found["predict_proba"], usual["predict_proba"], atol=tolerance)


def test_features_that_are_tiny_beside_a_penalty_teach_nothing():
    """The minimum is at zero, and it is found: no start is left where the penalty put it."""
    for size in (1e-90, 1e-50, 1e-10):
        for gate in ("linear", "mlp"):
            model = finite_or_refused(
                lambda size=size, gate=gate: mixture(gate=gate, alpha=1e-3, gate_alpha=1e-3).fit(scaled(size, size), Y),
                ["never"],
            )
            np.testing.assert_allclose(model.predict_proba(scaled(size, size)), 0.5, atol=1e-3)
            assert model.objective_ == pytest.approx(np.log(2), abs=1e-3)


# ------------------------------------------------------------------------------------------------------- single entries


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("weight", [None, 0.0, 1e-90])
def test_one_row_of_any_size(learner, weight):
    """Also where its weight hides it from the norms."""
    create, learn = LEARNERS[learner]
    arguments = {}
    if weight is not None:
        arguments["sample_weight"] = np.where(np.arange(N) == 5, weight, 1.0)
    for dtype, size in EXTREME:
        for column in (0, C):
            rows = X.copy()
            rows[5, column] = size
            with np.errstate(all="ignore"):
                rows = rows.astype(dtype)

            def work(rows=rows):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    return answers(learn(create(), rows, **arguments), rows, **arguments)

            names = [f"is in row 5, column {column})", "expected features of the size seen in fit"]
            found = finite_or_refused(work, names)
            assert found is not None or size >= 1e15, (dtype, size)


@pytest.mark.parametrize("learner", LEARNERS)
def test_predictions_for_rows_of_other_sizes(learner):
    create, learn = LEARNERS[learner]
    model = learn(create(), X)
    kwargs = {"groups": GROUPS} if isinstance(model, ContextRouter) else {}
    for dtype, size in EXTREME:
        for of_context, of_difference in ((size, 1.0), (1.0, size)):
            rows = scaled(of_context, of_difference, dtype)
            for method in ("decision_function", "predict_proba", "mixture_weights"):
                found = finite_or_refused(
                    lambda rows=rows, method=method: getattr(model, method)(rows, **kwargs),
                    ["expected features of the size seen in fit, got a row whose"],
                )
                assert found is None or np.isfinite(found).all()
                assert found is not None or size > 1e30, (dtype, size, method)
            found = finite_or_refused(
                lambda rows=rows: answers(model, rows), ["expected features", "expected context", "expected difference"]
            )


def test_rewards_of_any_size():
    for dtype, size in SIZES:
        features = scaled(1.0, size, dtype)[:, C:]
        found = finite_or_refused(lambda features=features: HEADS.rewards(features), ["got a row whose rewards"])
        assert found is None or np.isfinite(found).all()


# ------------------------------------------------------------------------------------------------------------- weights


WEIGHTS = {
    **{f"all {w:g}": np.full(N, w) for w in (1e-320, 1e-99, 1e-46, 1e-8, 1e20, 1e39, 1e97, 1e308)},
    **{f"group {w:g}": np.where(GROUPS == 0, w, 1.0) for w in (0.0, 1e-320, 1e-300, 1e-50, 1e20, 1e60, 1e99)},
    **{f"row {w:g}": np.where(np.arange(N) == 0, w, 1.0) for w in (0.0, 1e-310, 1e-44, 1e20, 1e39, 1e300)},
}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_weights_of_any_size_are_learned_or_refused(learner, dtype):
    create, learn = LEARNERS[learner]
    rows = X.astype(dtype)
    for name, weight in WEIGHTS.items():

        def work(weight=weight):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return answers(learn(create(), rows, sample_weight=weight), rows, sample_weight=weight)

        found = finite_or_refused(work, ["expected weights with a sum between", "expected groups whose weights add up"])
        assert found is not None or not 1e-8 <= weight.max() <= 1e20, name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("learner", ["mixture", "mixture, mlp", "router", "router, hedge", "router, mlp"])
def test_one_factor_for_all_weights_changes_no_fit(learner, dtype):
    """Under given penalties; "auto" takes more weight for more data."""
    create, learn = LEARNERS[learner]
    given = {"alpha": 1e-3} if "router" in learner else {"alpha": 1e-3, "gate_alpha": 1e-3}
    rows = X.astype(dtype)
    weight = np.random.default_rng(1).uniform(0.5, 1.5, size=N)
    usual = learn(create(**given), rows, sample_weight=weight).predict_proba(rows)
    for factor in (1e-90, 1e-20, 1e20, 1e90):
        if dtype == "float32" and not 1e-22 < factor < 1e22:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = learn(create(**given), rows, sample_weight=factor * weight).predict_proba(rows)
        np.testing.assert_allclose(found, usual, atol=1e-6 if dtype == "float64" else 5e-3)


def test_likelihoods_of_groups_of_tiny_weight_are_right_or_refused():
    """Where answers weigh next to nothing, ℓ_u = ω Σ_k π_k log σ(m_k) + O(ω²)."""
    model = mixture().fit(X, Y, groups=GROUPS)
    contexts = np.stack([X[g == GROUPS, :C].mean(axis=0) for g in range(GROUPS[-1] + 1)])[GROUPS]
    weights = np.exp(model.context_log_weights(contexts)).T
    limit = -np.mean(weights * np.logaddexp(0, -model.component_scores(X) * (2 * Y - 1)[:, None])) * 2
    refused = 0
    for weight in 10.0 ** np.arange(-30, -4.0, 2):
        found = finite_or_refused(
            lambda weight=weight: model.log_likelihood(X, Y, weight, groups=GROUPS), ["expected groups whose weights"]
        )
        refused += found is None
        assert found is None or found == pytest.approx(limit, rel=1e-3)
    assert 0 < refused < 13


def test_a_group_of_tiny_weight_is_as_good_as_absent():
    for tiny in (1e-320, 1e-200, 1e-50):
        weight = np.where(GROUPS == 0, tiny, 1.0)
        kept = GROUPS != 0
        whole = mixture().fit(X, Y, groups=GROUPS, sample_weight=weight)
        without = mixture().fit(X[kept], Y[kept], groups=GROUPS[kept])
        np.testing.assert_allclose(whole.predict_proba(X), without.predict_proba(X), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- parameters


PARAMETERS = {
    "mixture": ("alpha", "gate_alpha", "balance", "tol"),
    "mixture, groups": ("alpha", "gate_alpha", "balance"),
    "mixture, mlp": ("alpha", "gate_alpha", "balance"),
    "mixture, stream": ("alpha", "gate_alpha", "balance"),
    "mixture, mlp stream": ("alpha", "gate_alpha", "balance"),
    "router": ("alpha", "temperature", "history_temperature"),
    "router, mlp": ("alpha", "temperature"),
    "router, knn": ("temperature", "history_temperature"),
    "router, hedge": ("alpha", "temperature"),
    "router, stream": ("alpha", "temperature", "history_temperature", "history_decay"),
    "router, knn stream": ("temperature", "history_temperature", "history_decay"),
}
VALUES = (0.0, 1e-320, 1e-100, 1e-25, 1e-20, 1e-9, 1e9, 1e20, 1e25, 1.7e308)


@pytest.mark.parametrize(("learner", "name"), [(each, name) for each, names in PARAMETERS.items() for name in names])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_parameters_of_any_size_are_used_or_refused(learner, name, dtype):
    create, learn = LEARNERS[learner]
    rows = X.astype(dtype)
    for value in VALUES:

        def work(value=value):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return answers(learn(create(**{name: value}), rows), rows)

        found = finite_or_refused(work, [f"{name}: expected a number", f"over {name}={value!r}"])
        in_range = (name == "tol" and value > 0) or 1e-20 <= value <= (1e10 if name == "balance" else 1e20)
        assert found is not None or not in_range or (name == "history_decay" and value > 1), value


def test_losses_beyond_the_temperature_name_it():
    rows = scaled(1.0, 1e20, "float32")
    with pytest.raises(ValueError, match=r"over temperature=1e-20 within the range of float32, got a row .*: row \d+"):
        router(temperature=1e-20).fit(rows, Y)


def test_sizes_of_a_scaler():
    scaler = PairScaler(C).fit(X)
    for dtype, size in SIZES:
        for rows in (scaled(size, 1.0, dtype), scaled(1.0, size, dtype)):
            for norm in (1e-10, 1.0, 1e10):
                found = finite_or_refused(
                    lambda rows=rows, norm=norm: PairScaler(C, difference_norm=norm, context_norm=norm).fit_transform(
                        rows
                    ),
                    ["with a root mean square norm of at least"],
                )
                if found is not None:
                    sizes = [np.sqrt(np.sum(p.astype(float) ** 2) / N) for p in (found[:, :C], found[:, C:])]
                    np.testing.assert_allclose(sizes, norm, rtol=1e-3)
        rows = scaled(1.0, size, dtype)
        found = finite_or_refused(lambda rows=rows: scaler.transform(rows), ["row 0, column 2", "beyond"])
        assert found is None or np.isfinite(found).all()
    for value in (0.0, 1e-300, 1e-11, 1e11, 1e300):
        with pytest.raises(ValueError, match="context_norm: expected a number"):
            PairScaler(C, context_norm=value).fit(X)


# ------------------------------------------------------------------------------------------------------ kinds of X

NAMES = [f"feature {i}" for i in range(C + D)]


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


KINDS_OF_X = {
    "list": lambda values: values.tolist(),
    "tuple": lambda values: tuple(map(tuple, values)),
    "objects": lambda values: values.astype(object),
    "columns first": np.asfortranarray,
    "strided": lambda values: np.repeat(values, 2, axis=1)[:, ::2],
    "read-only": read_only,
    "big-endian": lambda values: values.astype(">f8"),
    "long double": lambda values: values.astype(np.longdouble),
    "unmasked": np.ma.masked_array,
    "pandas": lambda values: pd.DataFrame(values, columns=NAMES[-values.shape[1] :]),
    "pandas, nullable": lambda values: pd.DataFrame(values, columns=NAMES[-values.shape[1] :]).convert_dtypes(),
    "pandas, arrow": lambda values: pd.DataFrame(values, columns=NAMES[-values.shape[1] :]).astype("double[pyarrow]"),
    "polars": lambda values: pl.DataFrame(values, schema=NAMES[-values.shape[1] :]),
    "arrow": lambda values: pa.table(dict(zip(NAMES[-values.shape[1] :], map(pa.array, values.T), strict=True))),
    "torch": torch.tensor,
    "torch, with gradients": lambda values: torch.tensor(values, requires_grad=True),
}


@pytest.mark.parametrize("learner", ["mixture, groups", "mixture, stream", "router", "router, knn stream"])
@pytest.mark.parametrize("kind", KINDS_OF_X)
def test_every_kind_of_rows_is_the_array(learner, kind):
    create, learn = LEARNERS[learner]
    rows, convert = X, KINDS_OF_X[kind]
    expected_model, model = learn(create(), rows), learn(create(), convert(rows))
    expected, found = answers(expected_model, rows), answers(model, convert(rows))
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name]), value, rtol=1e-9, atol=1e-12, err_msg=name)
    features, context = (convert(part) for part in (rows[:, C:], rows[:, :C]))
    asked = {} if isinstance(model, MixtureBradleyTerry) else {"context": context}
    of_array = {} if isinstance(model, MixtureBradleyTerry) else {"context": rows[:, :C]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(
            np.asarray(model.rewards(features, **asked)), expected_model.rewards(rows[:, C:], **of_array), rtol=1e-9
        )
    np.testing.assert_allclose(
        np.asarray(PairScaler(C).fit(convert(rows)).transform(convert(rows))), PairScaler(C).fit_transform(rows)
    )


def masked(values, row=3):
    hidden = np.zeros(values.shape, dtype=bool)
    hidden[row, ...] = True
    return np.ma.masked_array(values, mask=hidden)


BAD_KINDS_OF_X = {
    "sparse": (sparse.csr_matrix(X), "dense data is required. Use '.toarray"),
    "sparse array": (sparse.coo_array(X), "dense data is required. Use '.toarray"),
    "sparse tensor": (torch.tensor(X).to_sparse(), r"use X.to_dense\(\)"),
    "times": (np.zeros((N, C + D), dtype="M8[s]"), r"X: expected numbers, got entries of type datetime64\[s\]"),
    "spans": (np.ones((N, C + D), dtype="m8[s]"), r"X: expected numbers, got entries of type timedelta64\[s\]"),
    "masked": (masked(X), "X: expected an array without masked entries, got one in row 3, column 0"),
    "complex": (X.astype(complex), "Complex data not supported"),
    "complex tensor": (torch.tensor(X.astype(complex)), "Complex data not supported"),
    "text": (np.full((N, C + D), "word"), "could not convert string"),
}


@pytest.mark.parametrize("kind", BAD_KINDS_OF_X)
@pytest.mark.parametrize("learner", ["mixture", "mixture, stream", "router"])
def test_rows_that_are_no_numbers_are_refused(kind, learner):
    rows, message = BAD_KINDS_OF_X[kind]
    create, learn = LEARNERS[learner]
    model = learn(create(), X)
    for work in (lambda: learn(create(), rows), lambda: model.predict(rows), lambda: model.log_likelihood(rows, Y),
                 lambda: PairScaler(C).fit(rows)):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=message):
            work()
    with pytest.raises((ValueError, TypeError), match=message.replace("X: ", "features: ").split(", got")[0]):
        HEADS.rewards(rows if "sparse" in kind else rows[:, C:])


# ---------------------------------------------------------------------------------------- labels, weights and groups

WEIGHT = np.random.default_rng(3).integers(1, 4, size=N)
COLUMNS = {
    "list": list,
    "tuple": tuple,
    "objects": lambda values: values.astype(object),
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "read-only": read_only,
    "series": pd.Series,
    "series, other index": lambda values: pd.Series(values, index=np.random.default_rng(0).permutation(len(values))),
    "series, nullable": lambda values: pd.Series(values).convert_dtypes(),
    "series, arrow": lambda values: pd.Series(pa.array(values), dtype=pd.ArrowDtype(pa.array(values).type)),
    "polars": pl.Series,
    "arrow": pa.array,
    "arrow, chunks": lambda values: pa.chunked_array([pa.array(values[:7]), pa.array(values[7:])]),
    "torch": torch.tensor,
    "bfloat16": lambda values: torch.tensor(values).bfloat16(),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_every_kind_of_column_is_the_array(kind, method):
    convert = COLUMNS[kind]
    groups = convert(GROUPS) if kind != "bfloat16" else GROUPS
    expected = getattr(mixture(), method)(X, Y, sample_weight=WEIGHT, groups=GROUPS)
    for labels in (convert(Y), convert(2 * Y - 1), Y == 1 if kind == "bfloat16" else convert(Y == 1)):
        found = getattr(mixture(), method)(X, labels, sample_weight=convert(WEIGHT), groups=groups)
        np.testing.assert_array_equal(found.coef_, expected.coef_)
        asked = {"sample_weight": convert(WEIGHT)}
        usual = {"sample_weight": WEIGHT}
        assert found.score(X, labels, **asked) == expected.score(X, Y, **usual)
        assert found.log_likelihood(X, labels, groups=groups, **asked) == expected.log_likelihood(
            X, Y, groups=GROUPS, **usual
        )
    for name in ("decision_function", "predict_proba"):
        users = router().partial_fit(X, convert(Y), sample_weight=convert(WEIGHT), groups=groups)
        same = router().partial_fit(X, Y, sample_weight=WEIGHT, groups=GROUPS)
        np.testing.assert_array_equal(getattr(users, name)(X, groups), getattr(same, name)(X, GROUPS))


def test_one_weight_for_all_rows():
    expected = mixture().fit(X, Y, sample_weight=np.full(N, 2.0))
    for weight in (2, 2.0, np.float32(2), torch.tensor(2.0)):
        np.testing.assert_array_equal(mixture().fit(X, Y, sample_weight=weight).coef_, expected.coef_)


def first(value, values=Y):
    return [value, *values[1:].tolist()]


TIES = {
    "a half": np.where(np.arange(N) == 0, 0.5, Y),
    "a half in a list": first(0.5),
    "a half in a tensor": torch.tensor(first(0.5)),
    "zero": np.where(np.arange(N) == 0, 0, 2 * Y - 1),
    "zero in a series": pd.Series(np.where(np.arange(N) == 0, 0, 2 * Y - 1)),
    "zero as a float": np.where(np.arange(N) == 0, 0.0, 2.0 * Y - 1),
}


@pytest.mark.parametrize("kind", TIES)
def test_ties_in_labels_are_refused_with_the_recipe(kind):
    model, by_users = mixture().fit(X, Y), router().fit(X, Y)
    for ask in (
        *(getattr(create(), method) for create in (mixture, router) for method in ("fit", "partial_fit")),
        *(getattr(one, name) for one in (model, by_users) for name in ("partial_fit", "score", "log_likelihood")),
        model.responsibilities,
    ):
        with pytest.raises(ValueError, match="a tie is two rows of weight 1/2, one in each order"):
            ask(X, TIES[kind])


BAD_COLUMNS = {
    "y": {
        "missing": (first(None), "expected a label in every row of y, got None in row 0"),
        "not a number": (first(np.nan), "y: expected labels that are finite, got nan in row 0"),
        "missing in polars": (pl.Series(first(None)), "nan in row 0"),
        "masked": (masked(Y), "y: expected an array without masked entries, got one in row 3"),
        "sparse": (sparse.csr_matrix(Y[:, None]), r"pass y.toarray\(\).ravel\(\)"),
        "sparse tensor": (torch.tensor(Y).to_sparse(), "expected y as a dense column"),
        "short": (Y[1:], "X has 60 rows, y has 59"),
        "three": (np.arange(N) % 3, "expected two labels"),
        "names": (np.where(Y, "model_a", "model_b"), "pass y == 'model_a'"),
    },
    "sample_weight": {
        "missing": (first(None, WEIGHT), "NaN or infinity in row 0"),
        "missing in polars": (pl.Series(first(None, WEIGHT)), "NaN or infinity in row 0"),
        "masked": (masked(WEIGHT), "sample_weight: expected an array without masked entries, got one in row 3"),
        "sparse": (sparse.csr_matrix(WEIGHT[:, None]), "expected sample_weight as a dense column"),
        "sparse tensor": (torch.tensor(WEIGHT).to_sparse(), "expected sample_weight as a dense column"),
        "text": (["heavy"] * N, "one number for each row, got entries of type <U5"),
        "times": (WEIGHT.astype("M8[s]"), "got entries of type datetime64"),
        "complex": (WEIGHT.astype(complex), "got entries of type complex128"),
        "set": ({1.0}, "got a set"),
        "dict": ({0: 1.0}, "got a dict"),
        "column": (WEIGHT[:, None], "1D array or scalar"),
        "short": (WEIGHT[1:], "expected .60,"),
        "negative": (np.where(np.arange(N) == 7, -1.0, 1.0), "got -1.0 in row 7"),
    },
    "groups": {
        "column": (GROUPS[:, None], "got 2 dimension"),
        "short": (GROUPS[1:], r"\[60, 59\]"),
        "booleans": (GROUPS > 3, "row 0"),
        "halves": (GROUPS + 0.5, "row 0"),
        "set": (set(GROUPS.tolist()), "got a set"),
        "text": ("ann", "got a str"),
    },
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in BAD_COLUMNS.items() for kind in kinds])
def test_bad_columns_are_refused_wherever_they_come(name, kind):
    values, message = BAD_COLUMNS[name][kind]
    model, by_users = mixture().fit(X, Y), router().fit(X, Y)
    asks = [mixture().fit, mixture().partial_fit, router().partial_fit, model.log_likelihood, by_users.log_likelihood]
    if name != "groups":
        asks += [router().fit, model.score, by_users.score]
    for ask in asks:
        arguments = {"y": Y, name: values}
        refusals = f"{message}|got the label" if name == "y" and ask.__self__ in (model, by_users) else message
        with pytest.raises(ValueError, match=refusals):
            ask(X, **arguments)


@pytest.mark.parametrize("seed", range(8))
def test_labels_weights_and_groups_together(seed):
    """Any mix of spellings, weights and groups is the same as the plain rows: order, repetition and gaps included."""
    rng = np.random.default_rng(seed)
    spellings = sorted(set(COLUMNS) - {"bfloat16"})
    of_y, of_weight, of_groups = (COLUMNS[spellings[i]] for i in rng.integers(len(spellings), size=3))
    order, weight = rng.permutation(N), rng.integers(0, 4, size=N)
    kept = weight > 0
    expected = mixture().fit(X[kept], Y[kept], sample_weight=weight[kept], groups=GROUPS[kept])
    names = [f"user {g:02d}" for g in GROUPS[order]]
    groups = names if seed % 2 else of_groups(GROUPS[order])
    found = mixture().fit(X[order], of_y(Y[order]), sample_weight=of_weight(weight[order]), groups=groups)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-4)
