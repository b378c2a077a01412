"""PairEncoder: from a table of texts to X = [context | difference]."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from micropref import MixtureBradleyTerry
from micropref.datasets import PreferenceTable
from micropref.embed import EncoderMismatchError, HashingEncoder, PairEncoder, TruncationWarning


def contextual(*args, **parameters) -> PairEncoder:
    """With the prompt, and the context where there is one, as most of these tests want it."""
    return PairEncoder(*args, **{"context": "auto", **parameters})


class CountingEncoder:
    """Vectors from character counts; remembers what it was asked for, and reads only so many characters."""

    def __init__(self, fingerprint="counting-1", size=1.0, reads=10_000):
        self.fingerprint = fingerprint
        self.size = size
        self.reads = reads
        self.seen: list[str] = []
        self.n_truncated_total_ = 0

    def encode(self, texts):
        self.seen += texts
        self.n_truncated_total_ += sum(len(text) > self.reads for text in texts)
        return np.array([[text.count(letter) for letter in "aeio"] for text in texts], dtype=np.float64) * self.size

    def __sklearn_clone__(self):
        return self


class DictStore:
    """A store of vectors in memory."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.kept: dict[str, np.ndarray] = {}

    def encode(self, texts):
        missing = [text for text in texts if text not in self.kept]
        if missing:
            self.kept.update(zip(missing, self.encoder.encode(missing), strict=True))
        return np.array([self.kept[text] for text in texts])


ROWS = [
    {"prompt": "say hello", "chosen": "hello there", "rejected": "go away", "context": "be kind"},
    {"prompt": "say hello", "chosen": "go away", "rejected": "hello there", "context": "be rude"},
    {"prompt": "name a fruit", "chosen": "an apple", "rejected": "a potato", "context": ""},
    {"prompt": "", "chosen": "something else", "rejected": "a potato", "context": "be kind"},
]
PLAIN = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in ROWS]

words = st.lists(st.sampled_from("red green blue ocean tea aeon idea".split()), min_size=1, max_size=4).map(" ".join)  # noqa: SIM905
pairs_of_words = st.tuples(words, words).filter(lambda pair: pair[0] != pair[1])
tables = st.lists(
    st.tuples(st.one_of(st.just(""), words), pairs_of_words, st.one_of(st.just(""), words)), min_size=1, max_size=8
)


def as_table(rows) -> PreferenceTable:
    return PreferenceTable(
        prompt=[prompt for prompt, _, _ in rows],
        chosen=[pair[0] for _, pair, _ in rows],
        rejected=[pair[1] for _, pair, _ in rows],
        context=[context for _, _, context in rows],
    )


def swapped(table: PreferenceTable) -> PreferenceTable:
    return PreferenceTable(table.prompt, chosen=table.rejected, rejected=table.chosen, context=table.context)


# ---------------------------------------------------------------------------------------------------------- layout


def test_layout_is_prompt_then_context_then_difference():
    encoder = CountingEncoder()
    fitted = contextual(encoder).fit(ROWS)
    X = fitted.transform(ROWS)
    assert X.dtype == np.float32
    assert X.shape == (4, 12)
    assert fitted.context_parts_ == {"prompt": 4, "context": 4}
    assert (fitted.n_prompt_features_, fitted.n_context_features_, fitted.feature_width_) == (4, 8, 4)
    raw = {key: encoder.encode([row[key] for row in ROWS]) for key in ROWS[0]}
    np.testing.assert_allclose(X[:, :4], raw["prompt"] * fitted.scale_["prompt"], rtol=1e-6)
    np.testing.assert_allclose(X[:, 4:8], raw["context"] * fitted.scale_["context"], rtol=1e-6)
    np.testing.assert_allclose(X[:, 8:], (raw["chosen"] - raw["rejected"]) * fitted.scale_["response"], atol=1e-5)


@given(rows=tables)
@settings(max_examples=40, deadline=None)
def test_exchanging_the_responses_negates_the_difference_and_nothing_else(rows):
    table = as_table(rows)
    fitted = contextual(HashingEncoder(8, n_hashes=256)).fit(table)
    X, exchanged = fitted.transform(table), fitted.transform(swapped(table))
    np.testing.assert_array_equal(exchanged[:, :16], X[:, :16])
    np.testing.assert_array_equal(exchanged[:, 16:], -X[:, 16:])


@given(rows=tables)
@settings(max_examples=40, deadline=None)
def test_single_responses_and_contexts_agree_with_the_pairs(rows):
    table = as_table(rows)
    fitted = contextual(HashingEncoder(8, n_hashes=256), template="{prompt} | {response}").fit(table)
    X = fitted.transform(table)
    difference = fitted.encode_responses(table.prompt, table.chosen) - fitted.encode_responses(
        table.prompt, table.rejected
    )
    np.testing.assert_allclose(X[:, 16:], difference, atol=1e-6)
    np.testing.assert_allclose(X[:, :16], fitted.encode_context(table.prompt, table.context), atol=1e-6)


def test_fit_transform_is_fit_then_transform():
    together = contextual(HashingEncoder(8)).fit_transform(ROWS)
    np.testing.assert_array_equal(together, contextual(HashingEncoder(8)).fit(ROWS).transform(ROWS))


@pytest.mark.parametrize(
    "source",
    [
        pd.DataFrame(ROWS),
        ROWS,
        {key: [row[key] for row in ROWS] for key in ROWS[0]},
        PreferenceTable(**{key: [row[key] for row in ROWS] for key in ROWS[0]}),
    ],
    ids=["DataFrame", "list", "columns", "table"],
)
def test_any_source_of_a_table_will_do(source, tmp_path):
    expected = contextual(HashingEncoder(8)).fit_transform(ROWS)
    np.testing.assert_array_equal(contextual(HashingEncoder(8)).fit_transform(source), expected)


def test_a_file_is_a_table_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    expected = contextual(HashingEncoder(8)).fit_transform(ROWS)
    np.testing.assert_array_equal(contextual(HashingEncoder(8)).fit_transform(path), expected)


def test_blank_prompts_and_contexts_are_zeros_and_never_embedded():
    encoder = CountingEncoder()
    fitted = contextual(encoder)
    X = fitted.fit_transform(ROWS)
    assert not X[3, :4].any()
    assert not X[2, 4:8].any()
    assert X[[0, 1, 2], :4].any(axis=1).all()
    assert not any(text.isspace() or not text for text in encoder.seen)
    assert not fitted.encode_context([" "], ["\n"]).any()


def test_template_says_what_stands_for_a_response():
    encoder = CountingEncoder()
    fitted = contextual(encoder, template="Q: {prompt} A: {response} {{end}}").fit(PLAIN)
    assert "Q: say hello A: go away {end}" in encoder.seen
    encoder.seen.clear()
    fitted.encode_responses(["say hello"], ["a {brace}"])
    assert encoder.seen == ["Q: say hello A: a {brace} {end}"]


def test_template_without_the_prompt_needs_no_prompts():
    encoder = CountingEncoder()
    fitted = contextual(encoder, template="answer: {response}").fit(PLAIN)
    np.testing.assert_array_equal(fitted.encode_responses(None, ["tea"]), fitted.encode_responses(["?"], ["tea"]))


# --------------------------------------------------------------------------------------------------- embedding once


def test_each_distinct_text_is_embedded_once():
    encoder = CountingEncoder()
    fitted = contextual(encoder)
    fitted.fit_transform(ROWS * 3)
    distinct = {text for row in ROWS for text in row.values() if text}
    assert sorted(encoder.seen) == sorted(distinct)
    encoder.seen.clear()
    fitted.transform(ROWS * 2)
    assert sorted(encoder.seen) == sorted(distinct)


def test_long_texts_come_first_and_rows_stay_in_order(monkeypatch):
    monkeypatch.setattr("micropref.embed._vectors._BATCH_TEXTS", 2)
    encoder = CountingEncoder()
    fitted = contextual(encoder).fit(ROWS)
    assert [len(text) for text in encoder.seen] == sorted((len(text) for text in encoder.seen), reverse=True)
    responses = ["aa", "e", "aaiioo", "o"]
    expected = CountingEncoder().encode(responses) * fitted.scale_["response"]
    np.testing.assert_allclose(fitted.encode_responses(None, responses), expected, rtol=1e-6)


def test_a_store_gives_the_vectors_it_has():
    encoder = CountingEncoder()
    stored = contextual(encoder, store=DictStore(encoder))
    X = stored.fit_transform(ROWS)
    n_embedded = len(encoder.seen)
    np.testing.assert_array_equal(stored.transform(ROWS), X)
    assert len(encoder.seen) == n_embedded
    np.testing.assert_array_equal(contextual(CountingEncoder()).fit_transform(ROWS), X)


@pytest.mark.parametrize("kept", [CountingEncoder("another-7"), None])
def test_a_store_of_another_encoder_is_refused(kept):
    named = re.escape(str(kept and kept.fingerprint))
    message = f"expected a store of the encoder counting-1, got one that keeps vectors of {named}"
    with pytest.raises(EncoderMismatchError, match=message):
        contextual(CountingEncoder(), store=DictStore(kept)).fit(ROWS)


@pytest.mark.parametrize(
    ("watched", "n_texts", "shown"), [(True, 2100, True), (True, 100, False), (False, 2100, False)]
)
def test_progress_is_shown_for_long_work_that_is_watched(monkeypatch, watched, n_texts, shown):
    fitted = contextual(CountingEncoder()).fit(ROWS)
    stream = io.StringIO()
    stream.isatty = lambda: watched
    monkeypatch.setattr(sys, "stderr", stream)
    fitted.encode_responses(None, [f"number {i}" for i in range(n_texts)])
    assert ("Embedding" in stream.getvalue()) is shown
    assert watched or not stream.getvalue()


def test_verbose_reports_on_standard_error(capsys):
    contextual(CountingEncoder()).fit(ROWS)
    assert capsys.readouterr() == ("", "")
    contextual(CountingEncoder(), verbose=1).fit(ROWS)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\[PairEncoder\] embedded 9 distinct texts in \d+\.\d s\n", err)


def test_texts_longer_than_the_encoder_reads_are_counted_and_reported():
    encoder = CountingEncoder(reads=11)
    message = "2 of 9 distinct texts are longer than the encoder reads"
    with pytest.warns(TruncationWarning, match=message) as caught:
        fitted = contextual(encoder).fit(ROWS * 2)
    assert fitted.n_truncated_ == 2
    assert caught[0].filename == __file__
    with pytest.warns(TruncationWarning, match="1 of 1 distinct texts"):
        fitted.encode_responses(None, ["a text that goes on"])


def test_nothing_is_reported_when_nothing_is_cut(recwarn):
    assert contextual(CountingEncoder()).fit(ROWS).n_truncated_ == 0
    assert contextual(HashingEncoder(8)).fit(ROWS).n_truncated_ == 0
    assert not recwarn.list


# ---------------------------------------------------------------------------------------------------------- scaling


@pytest.mark.parametrize("size", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("norms", [None, {"response": 3.0, "context": 7.0}])
def test_parts_have_the_root_mean_square_norms_asked_for(size, norms):
    fitted = contextual(CountingEncoder(size=size), norms=norms)
    X = fitted.fit_transform(ROWS).astype(float)
    wanted = {"prompt": 0.3, "context": 1.5, "response": 3.0, **(norms or {})}

    def root_mean_square(columns):
        norms = np.linalg.norm(X[:, columns], axis=1)
        return np.sqrt(np.mean(norms[norms > 0] ** 2))

    found = {
        "prompt": root_mean_square(slice(0, 4)),
        "context": root_mean_square(slice(4, 8)),
        "response": root_mean_square(slice(8, 12)),
    }
    assert found == pytest.approx(wanted, rel=1e-5)


def test_scales_belong_to_the_training_table():
    fitted = contextual(CountingEncoder()).fit(ROWS)
    np.testing.assert_array_equal(fitted.transform(ROWS[:1]), fitted.transform(ROWS)[:1])


def test_a_part_of_nothing_but_zeros_is_left_alone():
    rows = [{"prompt": "", "chosen": "zzz", "rejected": "yyy", "context": "xxx"}]
    fitted = contextual(CountingEncoder())
    assert not fitted.fit_transform(rows).any()
    assert fitted.scale_ == {"prompt": 1.0, "context": 1.0, "response": 1.0}


# ----------------------------------------------------------------------------------------------------- context parts


def test_context_is_a_part_where_the_table_has_it():
    assert contextual(CountingEncoder()).fit(PLAIN).context_parts_ == {"prompt": 4}
    assert contextual(CountingEncoder()).fit(ROWS).context_parts_ == {"prompt": 4, "context": 4}


@pytest.mark.parametrize(
    ("context", "n_prompt", "n_context"),
    [((), 0, 0), (("prompt",), 4, 4), (["context"], 0, 4), (("prompt", "context"), 4, 8)],
)
def test_context_parts_can_be_chosen(context, n_prompt, n_context):
    fitted = contextual(CountingEncoder(), context=context)
    assert fitted.fit_transform(ROWS).shape == (4, n_context + 4)
    assert (fitted.n_prompt_features_, fitted.n_context_features_) == (n_prompt, n_context)


def test_missing_context_column_is_named():
    fitted = contextual(CountingEncoder()).fit(ROWS)
    with pytest.raises(ValueError, match=r"expected a column 'context' in the table.*parts=\('prompt',\)"):
        fitted.transform(PLAIN)
    with pytest.raises(ValueError, match="expected a column 'context'"):
        contextual(CountingEncoder(), context=("context",)).fit(PLAIN)
    np.testing.assert_array_equal(
        fitted.encode_pairs(PLAIN, parts=("prompt",)), np.delete(fitted.transform(ROWS), np.s_[4:8], axis=1)
    )


def test_contexts_can_be_learned_afterwards():
    fitted = contextual(CountingEncoder()).fit(PLAIN)
    before = fitted.transform(PLAIN)
    scale = fitted.scale_["response"]
    assert fitted.fit_context(ROWS) is fitted
    assert fitted.context_parts_ == {"prompt": 4, "context": 4}
    assert fitted.scale_["response"] == scale
    np.testing.assert_array_equal(fitted.encode_pairs(PLAIN, parts=["prompt"]), before)
    np.testing.assert_allclose(fitted.transform(ROWS), contextual(CountingEncoder()).fit_transform(ROWS), rtol=1e-6)


def test_learning_contexts_counts_what_is_cut():
    encoder = CountingEncoder(reads=11)
    with pytest.warns(TruncationWarning):
        fitted = contextual(encoder).fit(PLAIN)
    with pytest.warns(TruncationWarning):
        fitted.fit_context([{**PLAIN[0], "context": "a very long context"}])
    assert fitted.n_truncated_ == 3


def test_learning_contexts_that_were_left_out_is_an_error():
    with pytest.raises(
        ValueError, match=r"context: expected a choice with contexts, got \('prompt',\); use context='auto'"
    ):
        contextual(CountingEncoder(), context=("prompt",)).fit(PLAIN).fit_context(ROWS)


def test_parts_that_were_not_seen_are_an_error():
    fitted = contextual(CountingEncoder()).fit(PLAIN)
    with pytest.raises(
        ValueError, match=r"expected parts that were seen in fitting \(prompt\), got 'context'; fit_context learns it"
    ):
        fitted.encode_pairs(ROWS, parts=("prompt", "context"))
    promptless = contextual(CountingEncoder(), context=("context",)).fit(ROWS)
    with pytest.raises(ValueError, match=r"seen in fitting \(context\), got 'prompt'$"):
        promptless.encode_context(["say hello"], parts=("prompt",))
    message = r"parts: expected a part of \('prompt', 'context'\), in this order, got 'prompt'"
    with pytest.raises(ValueError, match=message):
        fitted.encode_pairs(ROWS, parts="prompt")


def test_contexts_alone():
    fitted = contextual(CountingEncoder()).fit(ROWS)
    both = fitted.encode_context(["say hello"], ["be kind"])
    assert both.shape == (1, 8)
    np.testing.assert_array_equal(fitted.encode_context(["say hello"], parts=("prompt",)), both[:, :4])
    np.testing.assert_array_equal(fitted.encode_context(None, ["be kind"], parts=("context",)), both[:, 4:])
    assert contextual(CountingEncoder(), context=()).fit(ROWS).encode_context(["a", "b"]).shape == (2, 0)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"template": "{prompt}"},
            r"expected a template with \{response\}, possibly with \{prompt\} and nothing else, got '\{prompt\}'",
        ),
        ({"template": "{response} {answer}"}, "nothing else, got '{response} {answer}'"),
        ({"context": ("context", "prompt")}, r"in this order, got \('context', 'prompt'\)"),
        ({"context": ("prompt", "mood")}, r"context: expected 'auto' or a part of \('prompt', 'context'\)"),
        ({"context": "prompt"}, "context: expected 'auto' or a part of .* got 'prompt'"),
        (
            {"norms": {"mood": 1.0}},
            "expected norms with the keys response, prompt, context, length, clauses, got .*'mood'",
        ),
        ({"norms": {"prompt": 0.0}}, r"norms\['prompt'\]: expected a number between 1e-10 and 1e[+]10, got 0.0"),
        ({"norms": {"response": np.inf}}, r"norms\['response'\]: expected a number between 1e-10 and 1e[+]10, got inf"),
    ],
)
def test_bad_parameters_are_named_in_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        contextual(CountingEncoder(), **arguments).fit(ROWS)


def test_bad_encoder_is_named_in_fit():
    with pytest.raises(TypeError, match="got a int without encode and fingerprint"):
        contextual(3).fit(ROWS)


def test_empty_table_is_an_error():
    with pytest.raises(ValueError, match="expected at least one comparison, got none"):
        contextual(CountingEncoder()).fit(PreferenceTable([], [], []))


def test_ties_need_a_table_first():
    tied = [{**PLAIN[0], "tie": True}, PLAIN[1]]
    with pytest.raises(
        ValueError, match=r"expected one comparison for each row, got ties: 2 rows became 3.*read_preferences"
    ):
        contextual(CountingEncoder()).fit(tied)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_responses(None, ["fine", ""]), "text 1: expected something to read, got ''"),
        (
            lambda e: e.encode_responses(["one"], ["two", "three"]),
            "expected as many prompts as responses, got 1 prompts and 2 responses",
        ),
        (lambda e: e.encode_responses(None, ["two"]), "expected a prompt for each response, .* got no prompts"),
        (lambda e: e.encode_context(["one"]), "expected prompts and contexts, got no context"),
        (lambda e: e.encode_context(None, None), "expected prompts and contexts, got no prompt and no context"),
        (lambda e: e.encode_context(None, parts=()), "expected prompts or contexts, got no texts"),
        (
            lambda e: e.encode_context(["one"], ["two", "three"]),
            "expected as many prompts as contexts, got 1 prompts and 2 contexts",
        ),
    ],
)
def test_bad_texts_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(contextual(CountingEncoder(), template="{prompt} {response}").fit(ROWS))


def test_texts_that_are_not_strings_are_named():
    fitted = contextual(CountingEncoder()).fit(ROWS)
    with pytest.raises(TypeError, match=r"prompt 1: expected a string, got None \(NoneType\)"):
        fitted.encode_context(["one", None], ["two", "three"])
    with pytest.raises(TypeError, match="expected a list of strings, got one string, 'one'"):
        fitted.encode_responses(None, "one")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda texts: np.zeros(len(texts)),
            r"Broken.encode: expected vectors of shape \(9, n_dimensions\), got \(9,\)",
        ),
        (lambda texts: np.zeros((2, 3)), r"Broken.encode: expected vectors of shape \(9, n_dimensions\), got \(2, 3\)"),
        (
            lambda texts: np.full((len(texts), 3), np.nan),
            "Broken.encode: expected finite numbers, got NaN or infinity for 'something",
        ),
        (
            lambda texts: np.full((len(texts), 3), 1e300),
            "Broken.encode: expected finite numbers, got NaN or infinity for 'something",
        ),
    ],
)
def test_broken_encoders_are_noticed(returned, message):
    broken = type("Broken", (), {"fingerprint": "broken", "encode": staticmethod(returned)})()
    with pytest.raises(ValueError, match=message):
        contextual(broken).fit(ROWS)


def test_an_encoder_that_changes_its_width_is_noticed():
    encoder = CountingEncoder()
    fitted = contextual(encoder).fit(ROWS)
    encoder.encode = lambda texts: np.zeros((len(texts), 5))
    with pytest.raises(ValueError, match=r"expected vectors of shape \(1, 4\), got \(1, 5\)"):
        fitted.encode_responses(None, ["tea"])


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.transform(ROWS),
        lambda e: e.encode_pairs(ROWS),
        lambda e: e.encode_responses(None, ["a"]),
        lambda e: e.encode_context(["a"]),
        lambda e: e.fit_context(ROWS),
        lambda e: e.get_feature_names_out(),
        lambda e: e.to_config(),
    ],
)
def test_everything_but_fit_needs_a_fit(call):
    with pytest.raises(NotFittedError):
        call(contextual(CountingEncoder()))
    failed = contextual(CountingEncoder())
    with pytest.raises(ValueError, match="expected at least one comparison"):
        failed.fit(PreferenceTable([], [], []))
    with pytest.raises(NotFittedError):
        call(failed)


# ------------------------------------------------------------------------------------------------------- description


@pytest.mark.parametrize("context", ["auto", ("prompt",)])
def test_description_goes_through_json_and_restores_the_fitted_transformer(context):
    fitted = contextual(HashingEncoder(8), template="A: {response}", context=context, norms={"prompt": 3.0}).fit(ROWS)
    restored = PairEncoder.from_config(json.loads(json.dumps(fitted.to_config())))
    np.testing.assert_array_equal(restored.transform(ROWS), fitted.transform(ROWS))
    assert restored.to_config() == fitted.to_config()
    np.testing.assert_array_equal(clone(restored).fit_transform(ROWS), fitted.transform(ROWS))


def test_description_of_an_own_encoder_needs_it_again():
    config = contextual(CountingEncoder()).fit(ROWS).to_config()
    with pytest.raises(ValueError, match="encoder of micropref's, got 'counting-1', which cannot be rebuilt"):
        PairEncoder.from_config(config)
    encoder = CountingEncoder()
    restored = PairEncoder.from_config(config, encoder, store=DictStore(encoder))
    assert restored.transform(ROWS).shape == (4, 12)
    assert encoder.seen


def test_description_refuses_another_encoder_by_name():
    config = contextual(HashingEncoder(8)).fit(ROWS).to_config()
    message = r"expected the encoder of the fit, hashing\(.*n_features=8.*got the encoder hashing\(.*n_features=9"
    with pytest.raises(EncoderMismatchError, match=message):
        PairEncoder.from_config(config, HashingEncoder(9))
    altered = copy.deepcopy(config)
    altered["encoder"]["params"]["seed"] = 5
    with pytest.raises(EncoderMismatchError, match=r"seed=0.*seed=5"):
        PairEncoder.from_config(altered)
    altered = copy.deepcopy(config) | {"template": "Answer: {response}"}
    with pytest.raises(EncoderMismatchError, match=r"template='\{response\}'.*template='Answer: \{response\}'"):
        PairEncoder.from_config(altered)


def test_description_with_something_missing_says_what():
    config = contextual(HashingEncoder(8)).fit(ROWS).to_config()
    del config["scale"], config["norms"]
    with pytest.raises(ValueError, match="expected norms, scale in the description of a PairEncoder, got none"):
        PairEncoder.from_config(config)


# ------------------------------------------------------------------------------------------------------ scikit-learn


@pytest.mark.filterwarnings("ignore:Can't test estimator PairEncoder which requires input")
def test_scikit_learn_runs_the_checks_it_has_for_text():
    estimator_checks.check_estimator(contextual(), on_fail="raise")


# Those of scikit-learn's checks that hand over no matrix; it does not choose them by itself for a table of texts.
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_get_feature_names_out_error,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_scikit_learn_checks_that_need_no_matrix(check):
    check("PairEncoder", contextual())


def test_names_and_containers_of_the_output():
    fitted = contextual(CountingEncoder()).set_output(transform="pandas")
    frame = pd.DataFrame(ROWS, index=[7, 8, 9, 10])
    output = fitted.fit_transform(frame)
    assert list(output.columns) == [f"{part}_{i}" for part in ("prompt", "context", "response") for i in range(4)]
    assert list(output.index) == [7, 8, 9, 10]
    pd.testing.assert_frame_equal(fitted.transform(frame), output)


def test_clones_share_the_encoder_and_forget_the_fit():
    encoder = CountingEncoder()
    cloned = clone(contextual(encoder, template="A: {response}").fit(ROWS))
    assert cloned.encoder is encoder
    assert cloned.template == "A: {response}"
    assert not hasattr(cloned, "scale_")


def test_pickled_transformer_gives_the_same():
    fitted = contextual(HashingEncoder(8)).fit(ROWS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(ROWS), fitted.transform(ROWS))


def taste_for_fruit(n=60):
    """Comparisons in random order, and labels: 1 where the first response is the one with fruit."""
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for i in range(n):
        good, bad = f"sweet {rng.choice(['apple', 'pear', 'plum'])} {i}", f"{rng.choice(['stone', 'brick'])} wall {i}"
        first_is_good = bool(rng.random() < 0.5)
        first, second = (good, bad) if first_is_good else (bad, good)
        rows.append({"prompt": "what now?", "chosen": first, "rejected": second})
        labels.append(int(first_is_good))
    return rows, np.array(labels)


@pytest.mark.parametrize("kind", ["list", "DataFrame", "table"])
def test_in_a_pipeline_under_cross_validation(kind):
    rows, y = taste_for_fruit()
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    X = {"list": rows, "DataFrame": pd.DataFrame(rows), "table": PreferenceTable(**columns)}[kind]
    pipeline = make_pipeline(contextual(HashingEncoder(32), context=()), LogisticRegression(fit_intercept=False))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.95
    assert cross_val_predict(pipeline, X, y, cv=3, method="predict_proba").shape == (60, 2)


def test_parameters_can_be_searched():
    rows, y = taste_for_fruit()
    pipeline = make_pipeline(contextual(HashingEncoder(32)), LogisticRegression(fit_intercept=False))
    grid = {"pairencoder__norms": [{"response": 1e-3}, {"response": 8.0}], "pairencoder__context": [(), ("prompt",)]}
    search = GridSearchCV(pipeline, grid, cv=2, scoring="neg_log_loss").fit(rows, y)
    assert search.best_params_["pairencoder__norms"] == {"response": 8.0}


def test_by_default_a_pipeline_sees_differences_only():
    model = make_pipeline(PairEncoder(), MixtureBradleyTerry(n_components=1))
    model.fit(ROWS, [1] * len(ROWS))
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS]
    np.testing.assert_allclose(model.predict_proba(ROWS)[:, 1] + model.predict_proba(swapped)[:, 1], 1, rtol=1e-6)
