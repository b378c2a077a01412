"""Stated criteria from texts: PairEncoder with interactions, clauses and length, and PreferenceModel on top."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from test_pair_encoder import CountingEncoder, DictStore, words

from micropref import ContextInteractions, MixtureBradleyTerry, PairEncoder, PreferenceModel
from micropref.datasets import PreferenceTable
from micropref.embed import EmbeddingStore, HashingEncoder
from micropref.embed._clauses import clauses_of

SMALL = HashingEncoder(48, n_hashes=2**12)
FOODS = ("walnuts", "mushrooms", "shrimp", "cheese", "coriander", "olives", "beetroot", "honey")
DISHES = ("salad", "soup", "stew", "pie", "omelette", "curry")
ACTS = {"interactions": True, "clauses": True, "length": True}


def tastes(n=240, seed=0) -> PreferenceTable:
    """Users avoid or love a food; one dish has it, the other has another. Only the criterion says which is better."""
    rng = np.random.default_rng(seed)
    prompt, chosen, rejected, context = [], [], [], []
    for _ in range(n):
        food, other = rng.permutation(FOODS)[:2]
        dish = DISHES[rng.integers(len(DISHES))]
        avoids = rng.random() < 0.5
        wish = f"I never touch {food}, and please keep it short" if avoids else f"I really love {food}, since my youth"
        with_it, without = f"A {dish} with fresh {food}", f"A {dish} with fresh {other}"
        prompt.append(f"Suggest a {dish}.")
        context.append(wish)
        chosen.append(without if avoids else with_it)
        rejected.append(with_it if avoids else without)
    return PreferenceTable(prompt, chosen, rejected, context=context)


def with_sides(table: PreferenceTable, turned: np.ndarray) -> PreferenceTable:
    """The table with the responses of some rows exchanged."""
    sides = [(r, c) if t else (c, r) for c, r, t in zip(table.chosen, table.rejected, turned, strict=True)]
    return replace(table, chosen=[first for first, _ in sides], rejected=[second for _, second in sides])


TABLE = tastes()


def columns(encoder: PairEncoder, kind: str) -> np.ndarray:
    """Which of the columns that follow the context are of a kind."""
    names = encoder.get_feature_names_out()[encoder.n_context_features_ :]
    return np.array([name.startswith(kind) for name in names])


# -------------------------------------------------------------------------------------------------------- the clauses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I avoid nuts", ["I avoid nuts"]),
        ("I avoid nuts, but I love cheese.", ["I avoid nuts", "I love cheese"]),
        ("I avoid nuts; cheese AND olives are fine", ["I avoid nuts", "cheese", "olives are fine"]),
        ("I prefer tea over coffee because it is mild", ["I prefer tea", "coffee", "it is mild"]),
        ("Keep it under 3.5 minutes (short) while driving", ["Keep it under 3.5 minutes", "short", "driving"]),
        ("band, butter\nsandy", ["band", "butter", "sandy"]),  # no words inside of words
        ("no", ["no"]),
        ("a, b", ["a, b"]),  # nothing of three characters
        ("我不吃坚果，喜欢奶酪。", ["我不吃坚果", "喜欢奶酪"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_contexts_are_cut_at_punctuation_and_joining_words(text, expected):
    assert clauses_of(text) == expected


@given(st.text(max_size=60))
def test_clauses_are_pieces_of_the_text(text):
    position = 0
    for clause in clauses_of(text):
        position = text.index(clause, position) + len(clause)
        assert clause.strip()


def test_every_clause_is_embedded_once_and_kept():
    encoder = CountingEncoder()
    store = DictStore(encoder)
    pairs = PairEncoder(encoder, store=store, clauses=True).fit(TABLE)
    assert len(encoder.seen) == len(set(encoder.seen))
    assert set(clauses_of(TABLE.context[0])) <= set(store.kept)
    before = list(encoder.seen)
    pairs.transform(TABLE)
    pairs.encode_responses(TABLE.prompt, TABLE.chosen, TABLE.context)
    assert encoder.seen == before
    assert set(pairs.texts(TABLE)) == set(before)


# -------------------------------------------------------------------------------------------------------- the columns


@pytest.mark.parametrize("context", [(), ("prompt",), ("context",), "auto"])
def test_layout_is_context_difference_length_interactions_clauses(context):
    pairs = PairEncoder(SMALL, context=context, **ACTS).fit(TABLE)
    X = pairs.transform(TABLE)
    plain = PairEncoder(SMALL, context=context).fit(TABLE)
    start = pairs.n_context_features_
    assert pairs.feature_width_ == 48 + 1 + (2 + 48 + 24 * 48) + 48
    assert X.shape == (len(TABLE), start + pairs.feature_width_)
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X[:, : start + 48], plain.transform(TABLE))
    names = pairs.get_feature_names_out()
    assert len(set(names)) == X.shape[1]
    assert names[start + 48 : start + 52].tolist() == ["length", "cosine_prompt", "cosine_context", "gate_context_0"]
    assert names[-1] == "clauses_47"
    np.testing.assert_array_equal(pairs.fit_transform(TABLE), X)


def test_interactions_are_those_of_the_transformer():
    settings = ContextInteractions(0, gate=0.5, cosine=0.0, n_axes=(3, 4))
    pairs = PairEncoder(SMALL, context="auto", norms={"prompt": 1.0}, interactions=settings).fit(TABLE)
    X = pairs.transform(TABLE)
    transformer = clone(settings).set_params(n_context_features=96, given=0)
    np.testing.assert_allclose(transformer.fit_transform(X[:, :144]), X, rtol=1e-3, atol=1e-4)
    assert settings.get_params() == clone(settings).get_params()
    assert not hasattr(settings, "scale_")


def test_clauses_are_pooled_relative_to_the_prompt():
    pairs = PairEncoder(SMALL, clauses=True).fit(TABLE)
    found = pairs.transform(TABLE)
    d, pooled = found[:, :48].astype(np.float64), found[:, 48:]
    for i in range(20):
        prompt, *clauses = SMALL.encode([TABLE.prompt[i], *clauses_of(TABLE.context[i])]).astype(np.float64)
        prompt /= np.linalg.norm(prompt)
        expected = np.zeros(48)
        for clause in clauses:
            clause = clause / np.linalg.norm(clause)
            clause = clause - (clause @ prompt) * prompt
            clause /= np.linalg.norm(clause)
            expected += clause * (clause @ d[i])
        factor = pairs.scale_["clauses"] / pairs.scale_["response"]
        np.testing.assert_allclose(pooled[i], factor * expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.sqrt((pooled**2).sum(axis=1).mean()), 3.0, rtol=1e-4)


def test_length_is_a_column_that_can_be_removed():
    pairs = PairEncoder(SMALL, length=True, norms={"length": 0.5}).fit(TABLE)
    X = pairs.transform(TABLE)
    expected = np.log([len(each) for each in TABLE.chosen]) - np.log([len(each) for each in TABLE.rejected])
    np.testing.assert_allclose(X[:, 48], expected * pairs.scale_["length"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.sqrt((X[:, 48] ** 2).mean()), 0.5, rtol=1e-5)
    np.testing.assert_array_equal(X[:, :48], PairEncoder(SMALL).fit(TABLE).transform(TABLE))


pairs_of_words = st.tuples(words, words).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=15)
@given(st.lists(st.tuples(st.just("") | words, pairs_of_words, st.just("") | words), min_size=2, max_size=6))
def test_exchanging_responses_negates_and_single_responses_agree(rows):
    table = PreferenceTable(
        [row[0] for row in rows], [row[1][0] for row in rows], [row[1][1] for row in rows],
        context=[row[2] for row in rows],
    )  # fmt: skip
    pairs = PairEncoder(SMALL, context="auto", **ACTS).fit(table)
    X = pairs.transform(table)[:, pairs.n_context_features_ :]
    swapped = with_sides(table, np.full(len(table), True))
    np.testing.assert_array_equal(pairs.transform(swapped)[:, pairs.n_context_features_ :], -X)
    first, second = (
        pairs.encode_responses(table.prompt, each, table.context) for each in (table.chosen, table.rejected)
    )
    np.testing.assert_allclose(first - second, X, rtol=1e-3, atol=2e-3)
    blank = np.array([not context for context in table.context])
    acting = columns(pairs, "gate") | columns(pairs, "bilinear") | columns(pairs, "clauses")
    np.testing.assert_array_equal(X[np.ix_(blank, acting)], 0.0)


def test_vectors_computed_elsewhere_give_the_same():
    pairs = PairEncoder(SMALL, **ACTS).fit(TABLE)
    vectors = SMALL.encode(TABLE.chosen)
    expected = pairs.encode_responses(TABLE.prompt, TABLE.chosen, TABLE.context)
    lengths = [len(each) for each in TABLE.chosen]
    np.testing.assert_array_equal(pairs.encode_features(vectors, TABLE.prompt, TABLE.context, lengths), expected)
    with pytest.raises(ValueError, match="lengths: expected the number of characters"):
        pairs.encode_features(vectors, TABLE.prompt, TABLE.context)
    with pytest.raises(ValueError, match=r"features: expected shape \(n_responses, 48\)"):
        pairs.encode_features(vectors[:, :5], TABLE.prompt, TABLE.context, lengths)


@pytest.mark.parametrize(
    ("given_texts", "message"),
    [
        ((None, ["a"], ["b"]), "expected prompts, which act on the responses here, got none"),
        ((["p"], ["a"], None), "expected contexts, which act on the responses here, got none"),
        ((None, ["a"], None), "expected prompts and contexts"),
        ((["p"], ["a"], ["b", "c"]), "expected as many contexts as responses, got 2 contexts and 1 responses"),
        ((["p", "q"], ["a"], ["b"]), "expected as many prompts as responses, got 2 prompts and 1 responses"),
    ],
)
def test_what_acts_must_be_there(given_texts, message):
    with pytest.raises(ValueError, match=message):
        PairEncoder(SMALL, interactions=True).fit(TABLE).encode_responses(*given_texts)


@pytest.mark.parametrize("option", ["interactions", "clauses"])
def test_a_table_without_contexts_is_refused(option):
    blind = replace(TABLE, context=None)
    pairs = PairEncoder(SMALL, **{option: True})
    for method in (pairs.fit, pairs.texts):
        with pytest.raises(
            ValueError, match="expected a column 'context' in the table, which interactions and clauses"
        ):
            method(blind)
    pairs.fit(TABLE)
    with pytest.raises(ValueError, match="expected a column 'context'"):
        pairs.transform(blind)
    nothing_stated = pairs.transform(replace(TABLE, context=[""] * len(TABLE)))
    acting = ~(columns(pairs, "response") | columns(pairs, "cosine_prompt"))
    np.testing.assert_array_equal(nothing_stated[:, acting], 0.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"interactions": "yes"}, "interactions: expected None, True, or a ContextInteractions, got 'yes'"),
        ({"interactions": ContextInteractions(0, cosine=-1)}, "cosine: expected a number"),
        ({"clauses": 1}, "clauses: expected True or False, got 1"),
        ({"length": None}, "length: expected True or False, got None"),
        ({"norms": {"length": 0}}, r"norms\['length'\]: expected"),
    ],
)
def test_options_that_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        PairEncoder(SMALL, **parameters).fit(TABLE)


def test_description_goes_through_json_and_restores_every_bit():
    pairs = PairEncoder(SMALL, context="auto", **ACTS).fit(TABLE)
    config = json.loads(json.dumps(pairs.to_config()))
    again = PairEncoder.from_config(config, pairs.encoder_)
    np.testing.assert_array_equal(again.transform(TABLE), pairs.transform(TABLE))
    assert again.to_config() == pairs.to_config()
    assert (again.clauses, again.length, again.interactions.n_axes) == (True, True, (24, 48))
    np.testing.assert_array_equal(again.fit(TABLE).transform(TABLE), pairs.transform(TABLE))
    old = PairEncoder(SMALL).fit(TABLE).to_config()
    for name in ("vector_width", "clauses", "length", "interactions"):  # 0.1 wrote none of them
        del old[name]
    restored = PairEncoder.from_config(old, pairs.encoder_)
    np.testing.assert_array_equal(restored.transform(TABLE), PairEncoder(SMALL).fit(TABLE).transform(TABLE))


def test_any_estimator_can_follow_in_a_pipeline():
    train, test = TABLE[:160], TABLE[160:]
    plain = make_pipeline(PairEncoder(SMALL), MixtureBradleyTerry(1)).fit(train)
    acting = make_pipeline(PairEncoder(SMALL, interactions=True), MixtureBradleyTerry(1)).fit(train)
    assert acting.score(test) > max(plain.score(test), 0.8)
    turned = np.arange(160) % 2 == 1
    rows = with_sides(train, turned)
    logistic = make_pipeline(PairEncoder(SMALL, interactions=True), LogisticRegression(fit_intercept=False))
    assert logistic.fit(rows, ~turned).score(rows, ~turned) > 0.9


# ---------------------------------------------------------------------------------------------------------- the model


@pytest.fixture(scope="module")
def model() -> PreferenceModel:
    return PreferenceModel.fit(TABLE[:160], encoder=PairEncoder(SMALL, clauses=True), interactions=True, n_components=1)


def test_contexts_act_and_fit_says_so_once():
    with pytest.warns(UserWarning, match="the rows have contexts, so these act on the responses") as caught:
        acting = PreferenceModel.fit(TABLE[:160], encoder=SMALL, n_components=1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert acting.encoder.interactions_ is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left = PreferenceModel.fit(TABLE[:160], encoder=SMALL, n_components=1, interactions=False)
        confirmed = PreferenceModel.fit(TABLE[:160], encoder=SMALL, n_components=1, interactions=True)
        blank = PreferenceModel.fit(replace(TABLE, context=[""] * len(TABLE)), encoder=SMALL, n_components=1)
        own = PreferenceModel.fit(TABLE, encoder=PairEncoder(SMALL, interactions=True), n_components=1)
    assert left.encoder.interactions_ is None
    assert blank.encoder.interactions_ is None
    assert own.encoder.interactions_ is not None
    np.testing.assert_array_equal(confirmed.mixture.coef_, acting.mixture.coef_)
    held = TABLE[160:]
    assert (left.log_odds(held) > 0).mean() < 0.7 < 0.85 < (acting.log_odds(held) > 0).mean()
    with pytest.raises(ValueError, match="expected a column 'context'"):
        PreferenceModel.fit(replace(TABLE, context=None), encoder=SMALL, interactions=True)


def test_rewards_rank_and_log_odds_agree(model):
    held = TABLE[160:]
    first, second = (model.reward(held.prompt, each, held.context) for each in (held.chosen, held.rejected))
    np.testing.assert_allclose(first - second, model.log_odds(held), rtol=1e-3, atol=1e-3)
    for i in range(5):
        order = model.rank(held.prompt[i], [held.chosen[i], held.rejected[i]], held.context[i])
        assert order[0] == (first[i] < second[i])
    vectors = SMALL.encode(held.chosen)
    by_vectors = model.reward_features(vectors, SMALL.fingerprint, held.prompt, held.context)
    np.testing.assert_allclose(by_vectors, first, rtol=1e-6)
    with pytest.raises(ValueError, match="expected prompts, which act on the responses"):
        model.reward_features(vectors, SMALL.fingerprint)


def test_a_criterion_turns_the_order(model):
    dishes = ["A soup with fresh walnuts", "A soup with fresh cheese"]
    assert model.rank("Suggest a soup.", dishes, "I never touch walnuts, and please keep it short")[0] == 1
    assert model.rank("Suggest a soup.", dishes, "I really love walnuts, since my youth")[0] == 0


def test_rows_without_contexts_are_rows_that_state_nothing(model):
    held = TABLE[160:]
    blank = replace(held, context=[""] * len(held))
    blind = replace(held, context=None)
    np.testing.assert_array_equal(model.log_odds(blind), model.log_odds(blank))
    np.testing.assert_array_equal(
        model.reward(held.prompt, held.chosen), model.reward(held.prompt, held.chosen, [""] * len(held))
    )
    assert model.evaluate(held)[0]["accuracy"] > 0.8 > 0.7 > model.evaluate(blind)[0]["accuracy"]


@pytest.mark.parametrize("routed", [False, True])
def test_saved_models_follow(model, routed, tmp_path):
    if routed:
        model = PreferenceModel(model.encoder, model.mixture).route(TABLE[:60])
    model.save(tmp_path / "model")
    store = EmbeddingStore(tmp_path / "store", SMALL, dtype="float32")
    held = TABLE[160:]
    for loaded in (PreferenceModel.load(tmp_path / "model"), PreferenceModel.load(tmp_path / "model", store=store)):
        np.testing.assert_allclose(loaded.log_odds(held), model.log_odds(held), rtol=1e-4, atol=1e-4)
        assert loaded.encoder.interactions_.scale_ == model.encoder.interactions_.scale_
    assert not store.missing(clauses_of(held.context[0]))
    exact = PreferenceModel.load(tmp_path / "model")
    np.testing.assert_array_equal(exact.log_odds(held), model.log_odds(held))
    description = (tmp_path / "model" / "model.json").read_text()
    assert len(description) < 10_000  # the arrays are in the file of tensors


def test_contexts_route_and_users_are_known_on_top():
    """Two groups of annotators: one sees the criterion as it is, the other wants the opposite."""
    table = tastes(480, seed=1)
    turned = np.arange(480) // 6 % 2 == 1
    mixed = replace(with_sides(table, turned), group=[f"annotator {i // 6}" for i in range(480)])
    model = PreferenceModel.fit(mixed[:360], encoder=SMALL, interactions=True, n_components=2, random_state=0)
    assert (model.log_odds(mixed[360:]) > 0).mean() < 0.7
    votes = [i for i in range(360, 480) if i % 6 < 4]
    asked = [i for i in range(360, 480) if i % 6 >= 4]
    model.route(mixed[votes])
    assert (model.log_odds(mixed[asked]) > 0).mean() > 0.8
    assert [row["method"] for row in model.evaluate(mixed[asked])] == ["mixture", "routed", "history"]
    rewards = [
        model.reward([mixed.prompt[i] for i in asked], [side[i] for i in asked], [mixed.context[i] for i in asked],
                     [mixed.group[i] for i in asked])
        for side in (mixed.chosen, mixed.rejected)
    ]  # fmt: skip
    assert ((rewards[0] - rewards[1] > 0) == (model.log_odds(mixed[asked]) > 0)).mean() > 0.9
    model.route(replace(mixed[:60], group=None), alpha=0.1)
    assert model.router.n_context_features_ == 2 * 48


def test_a_prompt_gate_beside_interactions():
    gated = PreferenceModel.fit(
        TABLE[:160], encoder=SMALL, interactions=True, prompt_gate=True, n_components=2, n_init=1, random_state=0
    )
    assert gated.mixture.n_context_features_ == 48
    held = TABLE[160:]
    assert (gated.log_odds(held) > 0).mean() > 0.8
    first, second = (gated.reward(held.prompt, each, held.context) for each in (held.chosen, held.rejected))
    assert np.isfinite(first - second).all()
