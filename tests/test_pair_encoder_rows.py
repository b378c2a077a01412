"""PairEncoder: a row is oriented once, by y or by its label; what was fitted stays as it is until the next fit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from micropref import MixtureBradleyTerry
from micropref.datasets import PreferenceTable, read_preferences
from micropref.embed import EmbeddingStore, EncoderMismatchError, HashingEncoder, PairEncoder

SMALL = HashingEncoder(16, n_hashes=256)


def columns_of(rows) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


CONTAINERS = {
    "list": lambda rows: rows,
    "columns": columns_of,
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.Table.from_pylist,
}
# What a label column may say of the first response: (preferred, not preferred).
VOCABULARIES = {
    "a/b": ("a", "b"),
    "1/0": (1, 0),
    "1/-1": (1, -1),
    "booleans": (True, False),
    "words": ("first", "second"),
}


def judged(n=60, seed=0, pair=("response_a", "response_b")):
    """Comparisons in which the great response wins, as rows without labels, and which of them prefer the first."""
    rng = np.random.default_rng(seed)
    words = ["tea", "coffee", "warm", "cold", "long", "short", "nice", "rude"]
    rows, first = [], rng.random(n) < 0.5
    for wins in first:
        texts = [" ".join(["great" if good else "awful", *rng.choice(words, 5)]) for good in (wins, not wins)]
        rows.append({"prompt": "what now?", **dict(zip(pair, texts, strict=True))})
    return rows, first


def labelled(rows, first, vocabulary=("a", "b")):
    return [{**row, "label": vocabulary[0] if wins else vocabulary[1]} for row, wins in zip(rows, first, strict=True)]


def pipeline(encoder=SMALL, **parameters):
    return make_pipeline(PairEncoder(encoder, **parameters), MixtureBradleyTerry(n_components=1, alpha=1e-3))


# -------------------------------------------------------------------------------------------------- fitted with y


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
def test_a_labelled_table_with_y_is_oriented_once(contain, vocabulary):
    rows, first = judged()
    table = contain(labelled(rows, first, vocabulary))
    pipe = pipeline().fit(table, first)
    assert pipe[0].orientation_ == "as-given"
    assert pipe.score(table, first) == 1.0
    np.testing.assert_array_equal(pipe.predict(table), first)
    # Without a label, as rows come to be predicted, and with labels that say something else: y taught what first means.
    np.testing.assert_array_equal(pipe.predict(contain(rows)), first)
    np.testing.assert_array_equal(pipe.predict(contain(labelled(rows, ~first, vocabulary))), first)


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
def test_with_and_without_y_the_model_is_the_same(contain):
    rows, first = judged()
    table = contain(labelled(rows, first))
    by_y, by_label = pipeline().fit(table, first), pipeline().fit(table)
    assert by_label[0].orientation_ == "chosen-first"
    assert by_y[0].scale_ == by_label[0].scale_
    np.testing.assert_allclose(by_y[1].coef_, by_label[1].coef_, rtol=1e-5, atol=1e-6)
    assert by_label.score(table) == 1.0


taste = st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=2, max_size=12)


@given(taste=taste)
@settings(max_examples=25, deadline=None)
def test_exchanging_the_columns_and_y_changes_nothing(taste):
    rows = [
        {"prompt": "p", "response_a": f"red {i} tea", "response_b": f"{i} blue idea {j}"}
        for j, (i, _) in enumerate(taste)
    ]
    y = np.array([wins for _, wins in taste])
    assume(len(set(y)) == 2)
    exchanged = [{**row, "response_a": row["response_b"], "response_b": row["response_a"]} for row in rows]
    one, other = pipeline().fit(rows, y), pipeline().fit(exchanged, ~y)
    np.testing.assert_array_equal(one[0].transform(rows), -other[0].transform(exchanged))
    np.testing.assert_allclose(one[1].coef_, other[1].coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.predict_proba(rows), other.predict_proba(exchanged)[:, ::-1], atol=1e-5)


@given(taste=taste, labels=st.sampled_from(list(VOCABULARIES.values())))
@settings(max_examples=25, deadline=None)
def test_the_output_of_transform_means_the_same_in_fit_and_later(taste, labels):
    rows = [
        {"prompt": "p", "response_a": f"red {i} tea", "response_b": f"{i} blue idea {j}"}
        for j, (i, _) in enumerate(taste)
    ]
    first = np.array([wins for _, wins in taste])
    table = labelled(rows, first, labels)
    as_given, chosen_first = PairEncoder(SMALL), PairEncoder(SMALL)
    X = as_given.fit_transform(table, first)
    np.testing.assert_array_equal(as_given.transform(table), X)
    np.testing.assert_array_equal(PairEncoder(SMALL).fit(table, first).transform(rows), X)
    oriented = chosen_first.fit_transform(table)
    np.testing.assert_array_equal(chosen_first.transform(table), oriented)
    np.testing.assert_array_equal(oriented, np.where(first, 1, -1)[:, None] * X)


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
def test_cross_validation_with_y(contain):
    rows, first = judged()
    table = contain(labelled(rows, first))
    if isinstance(table, dict):
        table = pd.DataFrame(table)  # a dict has no rows that scikit-learn could select
    y = first.astype(int)
    assert cross_val_score(pipeline(), table, y, cv=3).min() == 1.0
    np.testing.assert_array_equal(cross_val_predict(pipeline(), table, y, cv=3), y)
    assert cross_val_score(make_pipeline(PairEncoder(SMALL), LogisticRegression()), table, y, cv=3).min() > 0.9


@pytest.mark.parametrize("kind", ["list", "table"])
def test_where_nothing_is_labelled_y_is_about_the_columns_as_they_stand(kind):
    rows, first = judged(pair=("chosen", "rejected"))
    table = rows if kind == "list" else PreferenceTable(**columns_of(rows))
    pipe = pipeline().fit(table, first)
    np.testing.assert_array_equal(pipe.predict(table), first)
    np.testing.assert_array_equal(
        PairEncoder(SMALL).fit_transform(table, first), PairEncoder(SMALL).fit_transform(table)
    )


@pytest.mark.parametrize("pair", [("first", "second"), ("response_1", "response_2")])
def test_other_names_of_the_columns(pair):
    rows, first = judged(pair=pair)
    table = labelled(rows, first)
    np.testing.assert_array_equal(pipeline().fit(table, first).predict(rows), first)


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl"])
def test_files_with_y(name, tmp_path):
    rows, first = judged()
    table = labelled(rows, first)
    path = tmp_path / name
    if name.endswith("csv"):
        pd.DataFrame(table).to_csv(path, index=False)
    else:
        path.write_text("\n".join(map(json.dumps, table)))
    np.testing.assert_array_equal(pipeline().fit(path, first).predict(path), first)


Y_FORMS = {
    "list": lambda y: y.tolist(),
    "0/1": lambda y: y.astype(int),
    "-1/1": lambda y: np.where(y, 1, -1),
    "Series": lambda y: pd.Series(y, index=np.arange(len(y)) + 7),
    "polars": pl.Series,
    "column": lambda y: y[:, None],
}


@pytest.mark.parametrize("form", Y_FORMS.values(), ids=Y_FORMS)
def test_y_that_contradicts_the_label_is_refused_by_both_names(form):
    rows, first = judged()
    table = labelled(rows, first)
    PairEncoder(SMALL).fit(table, form(first))
    contrary = first.copy()
    contrary[[3, 5]] ^= True
    by_label, by_y = ("first", "second") if first[3] else ("second", "first")
    message = (
        f"row 3: expected the label of the table and y to agree, got the {by_label} response preferred by the label "
        f"and the {by_y} by y, as in 2 of 60 rows"
    )
    with pytest.raises(ValueError, match=message):
        PairEncoder(SMALL).fit(pd.DataFrame(table), form(contrary))


def test_only_labels_that_are_understood_are_compared():
    rows, first = judged(n=4)
    for label in ("science", None, float("nan"), ["a"], ""):
        table = [{**row, "label": label} for row in rows]
        np.testing.assert_array_equal(
            PairEncoder(SMALL).fit_transform(table, first), PairEncoder(SMALL).fit_transform(rows, first)
        )
    PairEncoder(SMALL).fit(labelled(rows, first), np.where(first, "yes", "no"))
    with pytest.raises(ValueError, match="preferred by the label"):  # as an estimator would read y
        PairEncoder(SMALL).fit(labelled(rows, first), np.where(first, "no", "yes"))
    with pytest.raises(ValueError, match="preferred by the label"):
        PairEncoder(SMALL).fit([*rows[1:], labelled(rows, first)[0]], [*first[1:], not first[0]])
    with pytest.raises(ValueError, match="preferred by the label"):  # of chosen and rejected, too
        PairEncoder(SMALL).fit([{"prompt": "p", "chosen": "x", "rejected": "y", "label": 0}], [1])
    with pytest.raises(ValueError, match="preferred by the label"):
        PairEncoder(SMALL).fit([{**row, "preference": "b"} for row in rows], [1] * 4)
    with pytest.raises(ValueError, match="both 0 and -1"):
        PairEncoder(SMALL).fit(
            [{**row, "label": label} for row, label in zip(rows, (0, -1, 1, 1), strict=True)], [0, 0, 1, 1]
        )


@pytest.mark.parametrize("tie", [{"label": "tie"}, {"label": 0.5}, {"tie": True}, {"label": "a", "tie": 1}])
def test_ties_beside_y_are_refused_with_the_recipe(tie):
    rows, first = judged(n=6)
    table = labelled(rows, first)
    table[2] = {**rows[2], **tie}
    with pytest.raises(ValueError, match=r"row 2: expected a preferred response.*got a tie.*read_preferences"):
        PairEncoder(SMALL).fit(table, first)
    # A fitted encoder ignores them: it is asked what it thinks of the pair.
    fitted = PairEncoder(SMALL).fit(rows, first)
    np.testing.assert_array_equal(fitted.transform(table), fitted.transform(rows))
    recipe = read_preferences([*labelled(rows, first)[:2], {**rows[2], "label": "tie"}])
    pipeline().fit(recipe, mixturebradleyterry__sample_weight=recipe.weight)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (judged(4)[0], [1, 0, 1], r"expected a label in y for each of the 4 rows, got y of shape \(3,\)"),
        (judged(4)[0], np.ones((4, 2)), r"got y of shape \(4, 2\)"),
        ([{**judged(1)[0][0], "chosen": "x", "rejected": "y"}], [1], "chosen and rejected as well as response_a and"),
        ([{"prompt": "p", "answer": "x"}], [1], "'prompt', 'answer'"),
        ([{"response_a": "x", "response_b": "x"}], [1], "same text in the columns 'response_a' and 'response_b'"),
        ([{"response_a": "x", "response_b": ""}], [1], "empty response in column 'response_b'"),
        (PreferenceTable([], [], []), [], "expected at least one comparison, got none"),
        ([{"response_a": "x", "response_b": "y"}, 3], [1, 0], "row 1: .*named cells"),
    ],
)
def test_rows_that_do_not_go_with_y(X, y, message):
    with pytest.raises(ValueError, match=message):
        PairEncoder(SMALL).fit(X, y)


def test_without_y_a_label_is_needed_as_ever():
    rows, first = judged(n=4)
    with pytest.raises(ValueError, match="with a label"):
        PairEncoder(SMALL).fit(rows)
    fitted = PairEncoder(SMALL).fit(labelled(rows, first))
    with pytest.raises(ValueError, match="with a label"):
        fitted.transform(rows)


def test_texts_of_a_table_need_no_labels():
    rows, first = judged(n=4)
    assert set(PairEncoder(SMALL).texts(rows)) == set(PairEncoder(SMALL).texts(labelled(rows, first)))
    assert set(PairEncoder(SMALL).texts(rows)) == {row[name] for row in rows for name in ("response_a", "response_b")}


def test_contexts_learned_afterwards_from_rows_as_given():
    rows, first = judged(n=4)
    stated = [{**row, "context": "be kind"} for row in rows]
    fitted = PairEncoder(SMALL, context="auto").fit(rows, first).fit_context(stated)
    assert fitted.transform(stated).shape == (4, 48)
    np.testing.assert_allclose(
        fitted.transform(stated), PairEncoder(SMALL, context="auto").fit_transform(stated, first), rtol=1e-6
    )


def test_orientation_goes_through_the_description_and_0_1_had_only_one():
    rows, first = judged(n=4)
    fitted = PairEncoder(SMALL).fit(rows, first)
    config = json.loads(json.dumps(fitted.to_config()))
    restored = PairEncoder.from_config(config)
    assert restored.orientation_ == "as-given"
    np.testing.assert_array_equal(restored.transform(rows), fitted.transform(rows))
    del config["orientation"]
    assert PairEncoder.from_config(config).orientation_ == "chosen-first"


# ----------------------------------------------------------------------------------------------------------- frozen

CHANGES = {
    "encoder": HashingEncoder(24),
    "template": "Answer: {response}",
    "context": ("prompt",),
    "norms": {"response": 70.0, "prompt": 5.0, "context": 9.0},
    "store": "no/such/folder",
}
STATED = [
    {"prompt": "say hello", "chosen": "hello there", "rejected": "go away", "context": "be kind"},
    {"prompt": "name a fruit", "chosen": "an apple", "rejected": "a potato", "context": "be rude"},
]


def outputs(fitted):
    return [
        fitted.transform(STATED),
        fitted.encode_pairs(STATED, parts=("prompt",)),
        fitted.encode_responses(["p", "q"], ["tea", "milk"]),
        fitted.encode_context(["p", "q"], ["tea", "milk"]),
        np.array(fitted.texts(STATED)),
        np.array(json.dumps(fitted.to_config())),
        fitted.get_feature_names_out(),
    ]


@pytest.mark.parametrize("name", CHANGES)
def test_parameters_changed_after_fit_change_nothing_until_the_next_fit(name):
    fitted = PairEncoder(SMALL, context="auto").fit(STATED)
    before = outputs(fitted)
    fitted.set_params(**{name: CHANGES[name]})
    for found, expected in zip(outputs(fitted), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    if name != "store":
        fitted.fit(STATED)
        assert json.dumps(fitted.to_config()) != str(before[5])


@pytest.mark.parametrize("name", ["context", "norms", "template", "encoder"])
def test_contexts_are_learned_by_the_parameters_of_the_fit(name):
    plain = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in STATED]
    expected = PairEncoder(SMALL, context="auto").fit(plain).fit_context(STATED)
    fitted = PairEncoder(SMALL, context="auto").fit(plain).set_params(**{name: CHANGES[name]}).fit_context(STATED)
    assert fitted.scale_ == expected.scale_
    np.testing.assert_array_equal(fitted.transform(STATED), expected.transform(STATED))


REFUSED = {
    "template": ({"template": "{prompt}"}, STATED, None),
    "context": ({"context": "prompt"}, STATED, None),
    "norms": ({"norms": {"response": -1.0}}, STATED, None),
    "encoder": ({"encoder": 3}, STATED, None),
    "broken encoder": (
        {"encoder": type("Broken", (), {"fingerprint": "b", "encode": lambda self, texts: 1})()},
        STATED,
        None,
    ),
    "missing contexts": ({"context": ("context",)}, [{"prompt": "p", "chosen": "x", "rejected": "y"}], None),
    "empty": ({}, PreferenceTable([], [], []), None),
    "ties": ({}, [{**STATED[0], "tie": True}], None),
    "length of y": ({"template": "A {response}"}, STATED, [1]),
    "y against the label": ({"norms": {"response": 9.0}}, [{**STATED[0], "label": 1}], [0]),
}


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_fit_leaves_the_encoder_as_it_was(case, method):
    parameters, X, y = REFUSED[case]
    fitted = PairEncoder(SMALL, context="auto").fit(STATED)
    state, before = {**vars(fitted)}, outputs(fitted)
    fitted.set_params(**parameters)
    with pytest.raises((ValueError, TypeError)):
        getattr(fitted, method)(X, y)
    for found, expected in zip(outputs(fitted), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert {name: value for name, value in vars(fitted).items() if name not in parameters} == {
        name: value for name, value in state.items() if name not in parameters
    }


def test_a_refused_store_leaves_the_encoder_as_it_was(tmp_path):
    fitted = PairEncoder(SMALL, context="auto").fit(STATED)
    before = outputs(fitted)
    with EmbeddingStore(tmp_path, HashingEncoder(8)) as store:
        fitted.set_params(store=store)
        with pytest.raises(EncoderMismatchError, match="expected a store of the encoder"):
            fitted.fit(STATED)
    for found, expected in zip(outputs(fitted), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_refused_fit_of_contexts_leaves_the_encoder_as_it_was():
    plain = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in STATED]
    fitted = PairEncoder(SMALL, context="auto").fit(plain)
    before = json.dumps(fitted.to_config())
    with pytest.raises(ValueError, match="expected a column 'context'"):
        fitted.fit_context(plain)
    assert json.dumps(fitted.to_config()) == before
