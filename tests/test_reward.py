"""PreferenceModel: from texts to rewards, for a context and a user."""

from __future__ import annotations

import doctest
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logsumexp

import micropref.reward
from micropref import ContextRouter, MixtureBradleyTerry, PairEncoder, PreferenceModel, load_demo
from micropref.datasets import PreferenceTable
from micropref.embed import EncoderMismatchError, HashingEncoder
from micropref.persistence import ModelFileError, load, save

SMALL = HashingEncoder(64, n_hashes=2**12)
PROMPT = "How do I fall asleep?"
SHORT = "Same bedtime every night. Phone out of the room."
LONG = (
    "First, keep the same bedtime every night, since habit helps. Then leave the phone in another room, because "
    "light keeps you awake. Finally, read something slow, so that your mind lets go."
)
BRIEF_WISH = "Keep it short, please, just the essentials."


class Letters:
    """Somebody's own encoder: vowels counted."""

    fingerprint = "letters-1"

    def encode(self, texts):
        return np.array([[text.count(letter) for letter in "aeiou"] for text in texts], dtype=np.float32)

    def __sklearn_clone__(self):
        return self


@pytest.fixture(scope="module")
def world():
    return load_demo(n_annotators=120)


@pytest.fixture(scope="module")
def heads(world):
    """Encoder and mixture, for tests that add a router of their own."""
    fitted = PreferenceModel.fit(world.train, n_components=4, alpha=1e-3, random_state=0)
    return fitted.encoder, fitted.mixture


@pytest.fixture
def unrouted(heads):
    encoder, mixture = heads
    config = encoder.to_config()
    return PreferenceModel(PairEncoder.from_config(config, encoder.encoder_), mixture)


@pytest.fixture(scope="module")
def routed(heads, world):
    encoder, mixture = heads
    copy = PairEncoder.from_config(encoder.to_config(), encoder.encoder_)
    return PreferenceModel(copy, mixture).route(world.labelled).route(world.history)


@pytest.fixture(scope="module")
def small(world):
    """A model with few features, where the tastes do not matter."""
    return PreferenceModel.fit(world.train[:200], encoder=SMALL, n_components=2, n_init=1, random_state=0)


def share(odds) -> float:
    return float((odds > 0).mean())


def without(table: PreferenceTable, *columns: str) -> PreferenceTable:
    kept = {
        name: getattr(table, name)
        for name in ("prompt", "chosen", "rejected", "context", "group", "weight")
        if name not in columns
    }
    return PreferenceTable(**kept)


# ---------------------------------------------------------------------------------------------------------- learning


def test_the_stages_find_the_tastes(routed, world):
    single = PreferenceModel.fit(world.train, n_components=1).log_odds(world.test)
    mixture = share(routed.log_odds(world.test, routed=False))
    by_context = share(routed.log_odds(world.test, history=False))
    by_history = share(routed.log_odds(world.test))
    assert share(single) < 0.6
    assert mixture < 0.6
    assert mixture + 0.1 < by_context < by_history
    assert by_history > 0.75


def test_fit_is_the_encoder_and_the_mixture_put_together(world):
    table = world.train[:200]
    fitted = PreferenceModel.fit(table, encoder=SMALL, n_components=2, alpha=0.01, random_state=3)
    encoder = PairEncoder(SMALL).fit(table)
    by_hand = MixtureBradleyTerry(2, alpha=0.01, random_state=3).fit(
        encoder.encode_pairs(table, parts=()).astype(np.float64), groups=table.group
    )
    np.testing.assert_array_equal(fitted.mixture.coef_, by_hand.coef_)
    assert fitted.router is None
    assert fitted.mixture.n_context_features == 0


def test_groups_and_weights_reach_the_mixture(world):
    table = world.train[:200]
    plain = PreferenceModel.fit(table, encoder=SMALL, n_components=4, random_state=0)
    ungrouped = PreferenceModel.fit(without(table, "group"), encoder=SMALL, n_components=4, random_state=0)
    assert not np.allclose(plain.mixture.coef_, ungrouped.mixture.coef_)
    half = table[:100]
    weight = np.where(np.arange(200) < 100, 1.0, 0.0)
    weighted = PreferenceTable(table.prompt, table.chosen, table.rejected, group=table.group, weight=weight)
    encoder = PairEncoder(SMALL).fit(table)
    by_weight = PreferenceModel.fit(weighted, encoder=SMALL, n_components=2, random_state=0)
    by_hand = MixtureBradleyTerry(2, random_state=0).fit(encoder.encode_pairs(half, parts=()), groups=half.group)
    np.testing.assert_allclose(by_weight.mixture.objective_, by_hand.objective_, rtol=1e-4)


def test_contexts_can_be_left_to_the_router(world):
    table = world.labelled
    with_contexts = PreferenceModel.fit(table, encoder=SMALL, interactions=False, n_components=2, random_state=0)
    blind = PreferenceModel.fit(without(table, "context"), encoder=SMALL, n_components=2, random_state=0)
    np.testing.assert_array_equal(with_contexts.mixture.coef_, blind.mixture.coef_)
    assert with_contexts.encoder.context_parts_ == {"prompt": 64}


def test_a_mixture_and_a_pair_encoder_of_ones_own(world):
    mine = MixtureBradleyTerry(n_components=5, alpha=0.5)
    pairs = PairEncoder(SMALL, template="{prompt} {response}")
    fitted = PreferenceModel.fit(world.train[:100], encoder=pairs, mixture=mine, n_components=2, random_state=0)
    assert (fitted.mixture.n_components, fitted.mixture.alpha) == (2, 0.5)
    assert fitted.encoder.template == "{prompt} {response}"
    assert mine.n_components == 5
    assert not hasattr(mine, "coef_")
    assert not hasattr(pairs, "scale_")


def test_unknown_parameters_are_refused(world):
    with pytest.raises(TypeError, match="n_heads"):
        PreferenceModel.fit(world.train[:20], n_heads=3)


def test_a_prompt_gate_reads_the_prompt(world):
    gated = PreferenceModel.fit(
        world.train[:300], encoder=SMALL, prompt_gate=True, n_components=2, gate_alpha=1e-4, random_state=0
    )
    assert gated.mixture.n_context_features == 64
    prompts = list(dict.fromkeys(world.train.prompt))[:6]
    rewards = gated.reward(prompts, [LONG] * 6)
    assert len(np.unique(rewards.round(6))) == 6
    odds = gated.log_odds(world.test[:20])
    assert odds.shape == (20,)
    gated.route(world.labelled)
    assert gated.router.n_context_features_ == 128
    np.testing.assert_array_equal(gated.log_odds(world.test[:20], routed=False), odds)
    assert not np.allclose(gated.log_odds(world.test[:20], history=False), odds)


def test_a_router_without_contexts_reads_the_prompt(small, world):
    model = PreferenceModel(PairEncoder.from_config(small.encoder.to_config()), small.mixture)
    model.route(without(world.labelled, "context"))
    assert model.router.n_context_features_ == 64
    prompts = list(dict.fromkeys(world.labelled.prompt))[:5]
    assert len(np.unique(model.reward(prompts, [LONG] * 5).round(6))) == 5
    # Contexts that nobody taught it change nothing.
    np.testing.assert_array_equal(
        model.reward(prompts, [LONG] * 5), model.reward(prompts, [LONG] * 5, contexts=[BRIEF_WISH] * 5)
    )


# ----------------------------------------------------------------------------------------------------------- routing


def test_votes_are_kept_when_labelled_contexts_come_later(unrouted, world):
    unrouted.route(world.history)
    assert unrouted.router.n_context_features_ == 0
    users, votes = unrouted.router.history_.export()
    before = share(unrouted.log_odds(world.test))
    unrouted.route(world.labelled)
    assert unrouted.router.n_context_features_ == 2 * unrouted.encoder.feature_width_
    assert unrouted.router.history_.export()[0] == users
    np.testing.assert_array_equal(unrouted.router.history_.export()[1], votes)
    assert share(unrouted.log_odds(world.test)) > before - 0.02


@pytest.mark.parametrize("contexts", [None, ["", " \n", ""]])
def test_votes_without_a_user_replace_no_contexts(heads, world, contexts):
    known, nameless = world.history[:10], world.history[10:13]
    nameless = replace(nameless, group=None, context=contexts)
    model, expected = (
        PreferenceModel(PairEncoder.from_config(heads[0].to_config(), heads[0].encoder_), heads[1]) for _ in range(2)
    )
    expected.route(world.labelled).route(known)
    with pytest.warns(UserWarning, match="neither in 3 of 13 rows, the first of them row 10"):
        model.route(world.labelled).route(PreferenceTable.concat([known, nameless]))
    np.testing.assert_array_equal(model.log_odds(world.test), expected.log_odds(world.test))


def test_the_order_of_labels_and_votes_does_not_matter(heads, world):
    def model():
        return PreferenceModel(PairEncoder.from_config(heads[0].to_config(), heads[0].encoder_), heads[1])

    labels_first = model().route(world.labelled).route(world.history)
    votes_first = model().route(world.history).route(world.labelled)
    together = model().route(PreferenceTable.concat([world.labelled, world.history]))
    odds = labels_first.log_odds(world.test)
    np.testing.assert_allclose(votes_first.log_odds(world.test), odds, atol=1e-4)
    np.testing.assert_allclose(together.log_odds(world.test), odds, atol=1e-4)


def test_votes_are_added_to_votes(unrouted, world):
    half = len(world.history) // 2
    unrouted.route(world.history[:half]).route(world.history[half:])
    pieces = unrouted.router.history_
    whole = PreferenceModel(unrouted.encoder, unrouted.mixture).route(world.history).router.history_
    assert dict(zip(pieces.export()[0], pieces.export()[1].round(3).tolist(), strict=True)) == dict(
        zip(whole.export()[0], whole.export()[1].round(3).tolist(), strict=True)
    )


def test_ties_and_weights_of_votes(unrouted):
    """A tie says nothing about a user; a vote of weight 2 says as much as two."""
    vote = {"prompt": PROMPT, "response_a": SHORT, "response_b": LONG}
    rows = [
        {**vote, "label": "tie", "user": "tied", "weight": 1},
        {**vote, "label": 1, "user": "twice", "weight": 2},
        {**vote, "label": 1, "user": "again", "weight": 1},
        {**vote, "label": 1, "user": "again", "weight": 1},
    ]
    unrouted.route(rows)
    known = dict(zip(*unrouted.router.history_.export(), strict=True))
    np.testing.assert_allclose(known["twice"], known["again"], atol=1e-5)
    # log σ(m) + log σ(−m) prefers heads without an opinion, and not one answer to the other.
    margin = unrouted.mixture.component_scores(unrouted.encoder.encode_pairs(rows[1:2], parts=()))[0]
    tied = -0.5 * (np.logaddexp(0, margin) + np.logaddexp(0, -margin))
    np.testing.assert_allclose(known["tied"], tied - tied.max(), atol=1e-4)


def test_settings_stay_until_they_are_given_again(unrouted, world):
    unrouted.route(world.history, history_temperature=7.0)
    unrouted.route(world.labelled, gate="knn", n_neighbors=9)
    assert unrouted.router.history_temperature == 7.0
    unrouted.route(world.history[:10], history_decay=0.5)
    parameters = unrouted.router.get_params(deep=False)
    assert (parameters["gate"], parameters["n_neighbors"], parameters["history_decay"]) == ("knn", 9, 0.5)
    unrouted.route(world.labelled, gate="linear")
    assert (unrouted.router.gate, unrouted.router.history_decay) == ("linear", 0.5)


def test_votes_alone_cannot_change_the_gate(unrouted, world, tmp_path):
    unrouted.route(world.labelled, gate="knn")
    expected = unrouted.log_odds(world.test)
    with pytest.raises(
        ValueError, match=r"gate: expected 'knn', as when the labelled contexts were learned, got 'linear'"
    ):
        unrouted.route(world.history, gate="linear")
    assert len(unrouted.router.history_) == 0
    unrouted.route(world.history, gate="knn")
    assert not np.allclose(unrouted.log_odds(world.test), expected)
    unrouted.save(tmp_path)
    np.testing.assert_array_equal(PreferenceModel.load(tmp_path).log_odds(world.test), unrouted.log_odds(world.test))


def test_a_failed_route_leaves_the_model_as_it_was(unrouted, routed, world):
    with pytest.raises(ValueError, match="gate: expected one of"):
        unrouted.route(world.history, gate="bogus")
    assert unrouted.router is None
    with pytest.raises(TypeError, match="temprature"):
        unrouted.route(world.labelled, temprature=2.0)
    assert unrouted.router is None
    assert unrouted.log_odds(world.test[:3]).shape == (3,)


# --------------------------------------------------------------------------------------------------------- judgement


def test_rewards_differ_as_log_odds_where_one_head_dominates(routed, world):
    """σ of a difference of rewards is the probability, once it is known whose taste applies."""
    table = world.test
    odds = routed.log_odds(table)
    users = list(table.group)
    chosen = routed.reward(table.prompt, table.chosen, table.context, users)
    rejected = routed.reward(table.prompt, table.rejected, table.context, users)
    X = routed.encoder.encode_pairs(table)
    weights = routed.router.mixture_weights(X, groups=table.group)
    certain = weights.max(axis=1) > 1 - 1e-4
    assert certain.sum() > 20
    np.testing.assert_allclose((chosen - rejected)[certain], odds[certain], atol=1e-2, rtol=1e-2)
    # Otherwise the reward is the mean of the heads' margins, where the log-odds average probabilities.
    np.testing.assert_allclose(
        chosen - rejected, (weights * routed.mixture.component_scores(X[:, -768:])).sum(1), atol=1e-3
    )


def test_log_odds_are_those_of_the_mixed_probabilities(routed, world):
    table = world.test[:50]
    X = routed.encoder.encode_pairs(table)
    margins = routed.mixture.component_scores(X[:, -routed.encoder.feature_width_ :])
    weights = routed.router.mixture_weights(X, groups=table.group)
    probability = (weights * expit(margins)).sum(axis=1)
    np.testing.assert_allclose(expit(routed.log_odds(table)), probability, atol=1e-5)


def test_rewards_without_a_router_are_the_mean_of_the_heads(small):
    features = small.encoder.encode_responses(None, [SHORT, LONG])
    wanted = small.mixture.rewards(features) @ small.mixture.weights_
    np.testing.assert_allclose(small.reward([PROMPT] * 2, [SHORT, LONG]), wanted, rtol=1e-5)


def test_a_context_decides(routed):
    assert routed.rank(PROMPT, [LONG, SHORT], context=BRIEF_WISH).tolist() == [1, 0]
    contexts = [BRIEF_WISH, "I want all the details and reasons, step by step, with evidence from studies."]
    short, long = (routed.reward([PROMPT] * 2, [text] * 2, contexts) for text in (SHORT, LONG))
    assert (short - long)[0] > (short - long)[1]


def test_a_user_decides(unrouted, world):
    unrouted.route(world.history)
    taste = dict(zip(world.history.group, world.history.extra["taste"], strict=True))
    margin = {user: np.diff(unrouted.reward([PROMPT] * 2, [LONG, SHORT], users=[user] * 2)).item() for user in taste}
    brief = np.median([margin[user] for user in taste if taste[user] == "brief"])
    other = np.median([margin[user] for user in taste if taste[user] != "brief"])
    assert brief > other + 1


def test_unknown_users_get_what_the_context_says(routed):
    everybody = routed.reward([PROMPT] * 3, [LONG] * 3, [BRIEF_WISH] * 3)
    strangers = routed.reward([PROMPT] * 3, [LONG] * 3, [BRIEF_WISH] * 3, users=["stranger", None, -1])
    np.testing.assert_array_equal(everybody, strangers)
    known = routed.reward([PROMPT], [LONG], [BRIEF_WISH], users=["user-001"])
    assert abs(known[0] - everybody[0]) > 1e-3


def test_a_missing_context_is_a_blank_one(routed, world):
    users = ["nobody"]
    asked = routed.reward([PROMPT], [LONG], users=users), routed.reward([PROMPT], [LONG], [""], users)
    np.testing.assert_array_equal(*asked)
    silent = without(world.test[:20], "context")
    blank = PreferenceTable(silent.prompt, silent.chosen, silent.rejected, context=[""] * 20)
    np.testing.assert_array_equal(routed.log_odds(silent, history=False), routed.log_odds(blank))


def test_rank_agrees_with_reward_and_is_stable(routed):
    candidates = [SHORT, LONG, "Try tea.", SHORT, LONG]
    rewards = routed.reward([PROMPT] * 5, candidates, [BRIEF_WISH] * 5, ["user-001"] * 5)
    order = routed.rank(PROMPT, candidates, context=BRIEF_WISH, user="user-001")
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert (np.diff(rewards[order]) <= 0).all()
    place = {candidate: i for i, candidate in enumerate(order)}
    assert place[0] + 1 == place[3]
    assert place[1] + 1 == place[4]


def test_nothing_to_rank(routed, small):
    for model in (routed, small):
        assert model.rank(PROMPT, []).shape == (0,)
        assert model.reward([], [], []).shape == (0,)


def test_exchanged_answers_turn_the_log_odds_around(routed, world):
    table = world.test[:40]
    turned = PreferenceTable(table.prompt, table.rejected, table.chosen, context=table.context, group=table.group)
    np.testing.assert_allclose(routed.log_odds(turned), -routed.log_odds(table), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([PROMPT], [SHORT, LONG]), "expected as many prompts as responses, got 1 prompts"),
        (([PROMPT] * 2, [SHORT, LONG], [BRIEF_WISH]), "expected as many contexts as responses, got 1 contexts"),
        (([PROMPT] * 2, [SHORT, LONG], None, ["ann"]), "users: expected one for each of 2 rows, got 1"),
        (([PROMPT], [" "]), "response 0: expected text, got an empty response; pass empty="),
    ],
)
def test_rewards_of_lists_that_do_not_fit(routed, arguments, message):
    with pytest.raises(ValueError, match=message):
        routed.reward(*arguments)


def test_rewards_of_one_string_instead_of_a_list(routed):
    with pytest.raises(TypeError, match="got one string"):
        routed.reward([PROMPT], SHORT)
    with pytest.raises(TypeError, match="got one string"):
        routed.rank(PROMPT, SHORT)


# ---------------------------------------------------------------------------------------------------------- features


def test_features_computed_elsewhere(routed):
    encoder = HashingEncoder()
    vectors = encoder.encode([SHORT, LONG])
    rewards = routed.reward_features(vectors, encoder.fingerprint, [PROMPT] * 2, [BRIEF_WISH] * 2, ["user-001"] * 2)
    np.testing.assert_allclose(
        rewards, routed.reward([PROMPT] * 2, [SHORT, LONG], [BRIEF_WISH] * 2, ["user-001"] * 2), rtol=1e-5
    )


def test_features_of_another_encoder_are_refused_by_name(routed):
    other = HashingEncoder(seed=1)
    with pytest.raises(
        EncoderMismatchError,
        match=r"encoder hashing\(.*seed=0.*, got .*seed=1",
    ):
        routed.reward_features(other.encode([SHORT]), other.fingerprint, [PROMPT])


def test_features_without_the_prompts_that_a_gate_reads(routed, small):
    vectors = HashingEncoder().encode([SHORT])
    with pytest.raises(ValueError, match="expected prompts, since the weights"):
        routed.reward_features(vectors, HashingEncoder().fingerprint)
    # Nothing reads them here.
    rewards = small.reward_features(SMALL.encode([SHORT, LONG]), SMALL.fingerprint)
    np.testing.assert_allclose(rewards, small.reward([PROMPT] * 2, [SHORT, LONG]), rtol=1e-5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((2, 63)), r"features: expected shape \(n_responses, 64\), .*, got \(2, 63\)"),
        (np.zeros(64), r"features: expected shape .*, got \(64,\)"),
        (np.array([[0.0] * 64, [0.0] * 63 + [np.nan]]), "NaN in row 1, column 63"),
        (np.full((2, 64), 1e39), "infinity in row 0, column 0"),
    ],
)
def test_features_that_cannot_be_used(small, features, message):
    with pytest.raises(ValueError, match=message):
        small.reward_features(features, SMALL.fingerprint)


# -------------------------------------------------------------------------------------------------------- evaluation


def test_every_stage_is_evaluated_where_it_can_be(unrouted, world):
    table = world.test[:60]

    def methods():
        return [row["method"] for row in unrouted.evaluate(table)]

    assert methods() == ["mixture"]
    unrouted.route(world.labelled)
    assert methods() == ["mixture", "routed"]
    unrouted.route(world.history)
    assert methods() == ["mixture", "routed", "history"]
    strangers = without(table, "group")
    assert [row["method"] for row in unrouted.evaluate(strangers)] == ["mixture", "routed"]


def test_figures_are_those_of_the_log_odds(routed, world):
    table = world.test
    by_method = {row["method"]: row for row in routed.evaluate(table)}
    for method, odds in (
        ("mixture", routed.log_odds(table, routed=False)),
        ("routed", routed.log_odds(table, history=False)),
        ("history", routed.log_odds(table)),
    ):
        row = by_method[method]
        assert (row["subset"], row["n"]) == ("all", 1200)
        np.testing.assert_allclose(row["accuracy"], share(odds))
        np.testing.assert_allclose(row["log_loss"], np.logaddexp(0, -odds.astype(float)).mean(), rtol=1e-5)
        for name in ("accuracy", "log_loss"):
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_users_are_resampled_whole(routed, world):
    """Users repeat themselves: as single rows, the same answers would seem to say more."""
    table = PreferenceTable.concat([world.test[:400]] * 4)
    ids = np.arange(len(table))
    alone = PreferenceTable(table.prompt, table.chosen, table.rejected, context=table.context, group=ids)

    def width(data):
        row = routed.evaluate(data)[0]
        return row["accuracy_high"] - row["accuracy_low"]

    assert width(table) > 1.7 * width(alone)
    few = world.test[:100]
    assert routed.evaluate(few, random_state=1)[0] != routed.evaluate(few, random_state=2)[0]
    assert routed.evaluate(few) == routed.evaluate(few)


@pytest.mark.parametrize("by", ["context", "prompt", "taste", "group"])
def test_evaluation_by_a_column(routed, world, by):
    table = world.test
    rows = routed.evaluate(table, by=by)
    column = table.extra[by] if by == "taste" else getattr(table, by)
    values = list(dict.fromkeys(column))
    methods = ["mixture", "routed", "history"]
    assert [(row["subset"], row["method"]) for row in rows] == [(v, m) for v in ["all", *values] for m in methods]
    odds = routed.log_odds(table)
    last = [value == values[-1] for value in column]
    assert rows[-1]["n"] == sum(last)
    np.testing.assert_allclose(rows[-1]["accuracy"], share(odds[last]))


def test_one_user_has_no_interval(routed, world):
    one = world.test[world.test.group == "user-003"]
    (row, *_) = routed.evaluate(one)
    assert 0 <= row["accuracy"] <= 1
    assert [row[name] for name in row if name.endswith(("_low", "_high"))] == [None] * 4
    (single, *_) = routed.evaluate(without(world.test[:1], "group"))
    assert single["accuracy_low"] is None


def test_rows_without_group_or_prompt_are_on_their_own(routed, world):
    table = world.test[:40]
    nobody = PreferenceTable(table.prompt, table.chosen, table.rejected, group=[None] * 40)
    some = PreferenceTable(table.prompt, table.chosen, table.rejected, group=["user-001", *[None] * 39])
    promptless = PreferenceTable([""] * 40, table.chosen, table.rejected)
    for data in (nobody, some, promptless):
        row = routed.evaluate(replace(data, context=[""] * 40))[0]
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]


def test_values_that_look_alike_or_cannot_be_keys(small):
    row = {"prompt": PROMPT, "chosen": SHORT, "rejected": LONG}
    kinds = [1, "1", None, float("nan"), float("nan"), ["a", "b"], "all"]
    rows = small.evaluate([{**row, "kind": kind} for kind in kinds], by="kind")
    assert [(row["subset"], row["n"]) for row in rows] == [
        ("all", 7),
        ("1", 2),
        ("None", 1),
        ("nan", 2),
        ("['a', 'b']", 1),
        ("all", 1),
    ]


def test_a_tie_counts_half_whatever_is_predicted(small):
    tie = {"prompt": PROMPT, "response_a": SHORT, "response_b": LONG, "label": "tie"}
    (row,) = small.evaluate([tie, {**tie, "label": "tie", "prompt": "Another?"}])
    assert row["accuracy"] == 0.5
    assert row["n"] == 4


def test_answers_that_look_alike_count_half(small):
    """The encoder counts words: in another order they are the same answer to it."""
    row = {"chosen": "Tea first, milk then.", "rejected": "Milk first, tea then."}
    rows = [{"prompt": prompt, **row} for prompt in ("a", "b")]
    assert small.log_odds(rows).tolist() == [0, 0]
    (found,) = small.evaluate(rows)
    assert (found["accuracy"], found["accuracy_low"], found["accuracy_high"]) == (0.5, 0.5, 0.5)
    assert found["log_loss"] == pytest.approx(np.log(2))


def test_weights_count_and_rows_without_weight_do_not(small, world):
    table = world.test[:30]
    weight = np.where(np.arange(30) % 3 == 0, 0.0, np.arange(30) / 10)
    (row,) = small.evaluate(PreferenceTable(table.prompt, table.chosen, table.rejected, weight=weight))
    right = small.log_odds(table) > 0
    np.testing.assert_allclose(row["accuracy"], np.average(right, weights=weight))
    assert row["n"] == 20
    worthless = PreferenceTable(table.prompt, table.chosen, table.rejected, weight=np.zeros(30))
    with pytest.raises(ValueError, match="expected at least one comparison with weight"):
        small.evaluate(worthless)


def test_an_unknown_column_is_answered_with_those_there_are(small, world):
    with pytest.raises(ValueError, match=r"expected one of the columns 'prompt', 'group', 'taste', 'prob"):
        small.evaluate(world.history[:5], by="colour")
    with pytest.raises(ValueError, match=r"expected one of the columns .*, got 'context'"):
        small.evaluate(world.history[:5], by="context")


# ------------------------------------------------------------------------------------------------------- persistence


@pytest.mark.parametrize("stage", ["mixture", "prompt gate", "routed"])
def test_save_and_load(stage, routed, small, world, tmp_path):
    model = {
        "mixture": lambda: small,
        "prompt gate": lambda: PreferenceModel.fit(
            world.train[:200], encoder=SMALL, prompt_gate=True, n_components=2, random_state=0
        ),
        "routed": lambda: routed,
    }[stage]()
    model.save(tmp_path)
    loaded = PreferenceModel.load(tmp_path)
    assert (loaded.router is None) == (stage != "routed")
    np.testing.assert_array_equal(loaded.log_odds(world.test), model.log_odds(world.test))
    arguments = (world.test.prompt, world.test.chosen, world.test.context, list(world.test.group))
    np.testing.assert_array_equal(loaded.reward(*arguments), model.reward(*arguments))
    assert loaded.encoder.fingerprint_ == model.encoder.fingerprint_


def test_a_loaded_model_is_routed_on(small, world, tmp_path):
    small.save(tmp_path / "a")
    PreferenceModel.load(tmp_path / "a").route(world.history[:500]).save(tmp_path / "b")
    PreferenceModel.load(tmp_path / "b").route(world.labelled).save(tmp_path / "c")
    loaded = PreferenceModel.load(tmp_path / "c")
    assert len(loaded.router.history_) == len(set(world.history.group[:500]))
    in_one = PreferenceModel(PairEncoder.from_config(small.encoder.to_config()), small.mixture)
    in_one.route(world.history[:500]).route(world.labelled)
    np.testing.assert_array_equal(loaded.log_odds(world.test), in_one.log_odds(world.test))


def test_another_encoder_is_refused_by_name(small, tmp_path):
    small.save(tmp_path)
    with pytest.raises(EncoderMismatchError, match=r"n_features=64.*got the encoder hashing\(.*n_features=768"):
        PreferenceModel.load(tmp_path, "hashing")
    loaded = PreferenceModel.load(tmp_path, HashingEncoder(64, n_hashes=2**12))
    assert loaded.encoder.encoder_.n_features == 64


def test_an_encoder_of_ones_own_comes_along_in_person(world, tmp_path):
    model = PreferenceModel.fit(world.train[:100], encoder=Letters(), n_components=1)
    model.save(tmp_path)
    with pytest.raises(ValueError, match=r"got 'letters-1', which cannot be rebuilt .* pass it as encoder="):
        PreferenceModel.load(tmp_path)
    loaded = PreferenceModel.load(tmp_path, Letters())
    np.testing.assert_array_equal(loaded.reward([""], [SHORT]), model.reward([""], [SHORT]))
    other = Letters()
    other.fingerprint = "letters-2"
    with pytest.raises(EncoderMismatchError, match=r"letters-1 .*letters-2 "):
        PreferenceModel.load(tmp_path, other)


def test_numpy_numbers_in_the_settings_are_saved(world, tmp_path):
    pairs = PairEncoder(SMALL, norms={"response": np.float32(2)})
    PreferenceModel.fit(world.train[:50], encoder=pairs, n_components=np.int64(1)).save(tmp_path)
    assert PreferenceModel.load(tmp_path).encoder.norms["response"] == 2


def test_models_of_texts_and_of_features_are_told_apart(small, tmp_path):
    small.save(tmp_path / "texts")
    with pytest.raises(ModelFileError, match=r"a model of texts; load it with PreferenceModel\.load"):
        load(tmp_path / "texts")
    save(small.mixture, tmp_path / "features")
    with pytest.raises(ModelFileError, match=r"estimator without encoder; load it with micropref\.load"):
        PreferenceModel.load(tmp_path / "features")
    with pytest.raises(FileNotFoundError, match="expected a saved model"):
        PreferenceModel.load(tmp_path / "nowhere")


def test_a_model_put_together_by_hand(small, world):
    encoder = PairEncoder.from_config(small.encoder.to_config()).fit_context(world.labelled)
    router = ContextRouter(small.mixture).fit(encoder.transform(world.labelled))
    by_hand = PreferenceModel(encoder, small.mixture, router)
    routed = PreferenceModel(PairEncoder.from_config(small.encoder.to_config()), small.mixture).route(world.labelled)
    np.testing.assert_array_equal(by_hand.log_odds(world.test), routed.log_odds(world.test))


def test_extreme_margins_stay_finite(small, world):
    encoder, mixture = small.encoder, MixtureBradleyTerry(2)
    vars(mixture).update(vars(small.mixture) | {"coef_": small.mixture.coef_ * 1e5})
    model = PreferenceModel(encoder, mixture)
    odds = model.log_odds(world.test)
    assert np.abs(odds).max() > 1e3
    assert np.isfinite(odds).all()
    (row,) = model.evaluate(world.test)
    assert np.isfinite(row["log_loss"])
    assert np.isfinite(logsumexp(model.reward(world.test.prompt, world.test.chosen)))


def test_examples_in_the_docstrings():
    failures, tried = doctest.testmod(micropref.reward)
    assert (failures, tried > 5) == (0, True)


# ------------------------------------------------------------------------------------------------- what is not there


def test_a_model_routed_by_contexts_wants_contexts_or_users(routed, world):
    bare = without(world.test[:5], "context", "group")
    for ask in (routed.log_odds, routed.evaluate, lambda table: routed.reward(table.prompt, table.chosen)):
        with pytest.raises(ValueError, match="since this model was routed by contexts, got neither"):
            ask(bare)
    assert routed.reward(bare.prompt, bare.chosen, users=list(world.test.group[:5])).shape == (5,)


def test_users_are_the_same_whatever_file_they_come_from(unrouted):
    unrouted.route([{"prompt": PROMPT, "chosen": SHORT, "rejected": LONG, "group": 1007}] * 5)
    unrouted.route([{"prompt": PROMPT, "chosen": LONG, "rejected": SHORT, "group": "0042"}] * 5)
    assert len(unrouted.router.history_) == 2
    by_number, by_text = (unrouted.reward([PROMPT], [SHORT], users=[user])[0] for user in (1007, "1007"))
    assert by_number == by_text
    assert by_number != unrouted.reward([PROMPT], [SHORT], users=["0042"])[0]
