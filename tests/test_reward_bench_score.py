"""reward_bench_score: small tables whose scores are counted by hand."""

from __future__ import annotations

import math
import warnings

import datasets as hf_datasets
import numpy as np
import pytest
from hub_cases import bench2_row, bench_row
from rollout_cases import WISH, demo_model

from micropref.datasets import PreferenceTable, load_reward_bench
from micropref.metrics import reward_bench_score


def stated(prompts, responses):
    """The reward that a response states at its end: "Oslo =2.5"."""
    return [float(response.rpartition("=")[2]) for response in responses]


def score(*arguments, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return reward_bench_score(*arguments, **keywords)


# ----------------------------------------------------------------------------------------------------------- version 1


def pairs(wins: dict[str, list[tuple[float, float]]]) -> PreferenceTable:
    """Pairs of version 1 by subset, as rewards of the chosen and the rejected response."""
    flat = [(subset, i, *pair) for subset, own in wins.items() for i, pair in enumerate(own)]
    return PreferenceTable(
        prompt=[f"{subset} {i}" for subset, i, _, _ in flat],
        chosen=[f"right ={better}" for _, _, better, _ in flat],
        rejected=[f"wrong ={worse}" for _, _, _, worse in flat],
        extra={"subset": [subset for subset, *_ in flat], "id": list(range(len(flat)))},
    )


WON, LOST, LEVEL = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)


def test_sections_weigh_their_subsets_by_published_counts():
    table = pairs(
        {
            "alpacaeval-easy": [WON, LOST],  # 0.5, counts 100
            "mt-bench-med": [WON],  # 1, counts 40
            "mt-bench-hard": [WON, WON, LEVEL],  # 2/3, counts 37
            "llmbar-natural": [LOST],  # 0, counts 100
            "donotanswer": [WON, LOST, LOST, LOST],  # 0.25, alone
            "math-prm": [WON],  # 1, counts 984
            "hep-rust": [LOST],  # 0, counts 164
        }
    )
    found = reward_bench_score(stated, table)
    assert found.version == 1
    expected = {
        "Chat": (0.5 * 100 + 40) / 140,
        "Chat Hard": (2 / 3 * 37) / 137,
        "Safety": 0.25,
        "Reasoning": 984 / 1148,
    }
    assert found.sections == pytest.approx(expected)
    assert list(found.sections) == list(expected)
    assert found.score == pytest.approx(sum(expected.values()) / 4)
    assert found.subsets["mt-bench-hard"] == pytest.approx(2 / 3)
    assert found.n_prompts["donotanswer"] == 4
    assert found.missing == ()
    assert "Chat Hard    0.180" in str(found)


def test_all_code_weighs_as_much_as_mathematics():
    code = {f"hep-{language}": [WON] for language in ("cpp", "go", "java", "js", "python", "rust")}
    assert score(stated, pairs({**code, "math-prm": [LOST]})).sections == {"Reasoning": 0.5}


def test_prior_sets_count_half():
    core = {"alpacaeval-easy": [WON], "mt-bench-hard": [WON], "donotanswer": [LOST], "math-prm": [LOST]}
    prior = {"shp": [WON], "summarize": [WON, LOST], "anthropic_hhh": [WON]}
    assert reward_bench_score(stated, pairs(core)).score == 0.5
    found = reward_bench_score(stated, pairs({**core, **prior}))
    assert found.sections["Prior Sets"] == pytest.approx(2.5 / 3)  # means of sets, not of pairs
    assert found.score == pytest.approx((2 * 2 + 2.5 / 3) / 9)


def test_missing_sections_are_named():
    with pytest.warns(UserWarning, match="no rows of Safety, Reasoning; the score is the mean of the other sections"):
        found = reward_bench_score(stated, pairs({"alpacaeval-easy": [WON], "mt-bench-hard": [LOST]}))
    assert (found.score, found.missing) == (0.5, ("Safety", "Reasoning"))
    assert str(found).endswith("missing: Safety, Reasoning")


# ----------------------------------------------------------------------------------------------------------- version 2


def best_of(rows: list[tuple[str, str, list[float], list[float]]]) -> PreferenceTable:
    """The table of version 2 of (subset, id, rewards of right answers, rewards of wrong answers)."""
    return load_reward_bench(
        [
            {
                "prompt": f"{subset} {name}",
                "chosen": [f"right {i} ={value}" for i, value in enumerate(right)],
                "rejected": [f"wrong {i} ={value}" for i, value in enumerate(wrong)],
                "subset": subset,
                "id": name,
                "num_correct": len(right),
            }
            for subset, name, right, wrong in rows
        ]
    ).test


def test_best_of_four_is_no_accuracy_of_pairs():
    table = best_of([("Math", "1", [1], [0, 0, 2]), ("Math", "2", [3], [2, 1, 0]), ("Focus", "3", [0], [1, 1, 1])])
    found = score(stated, table)
    assert found.version == 2
    assert found.subsets == {"Math": 0.5, "Focus": 0.0}  # of pairs: 5/6 and 0
    assert found.n_prompts == {"Math": 2, "Focus": 1}
    assert found.score == 0.25


@pytest.mark.parametrize(
    ("wrong", "expected"), [([0, 0, 0], 1), ([1, 0, 0], 1 / 2), ([1, 1, 0], 1 / 3), ([1, 1, 1], 1 / 4), ([2, 1, 1], 0)]
)
def test_level_answers_share_the_point(wrong, expected):
    assert score(stated, best_of([("Safety", "1", [1], wrong)])).subsets["Safety"] == pytest.approx(expected)


def test_an_answer_given_twice_counts_twice():
    row = {"prompt": "p", "chosen": ["a =1"], "rejected": ["b =1", "b =1", "c =0"], "subset": "Math", "id": "1",
           "num_correct": 1}  # fmt: skip
    assert score(stated, load_reward_bench([row])).subsets["Math"] == pytest.approx(1 / 3)


def by_hand(several, one, preferred, preferred_hard, relative):
    return 0.3 * several + 0.3 * one + 0.2 * preferred + 0.2 * preferred_hard + 0.01 * relative


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # margin 3, spread 1, margin of the prompt with one 2
        ([("tied:1", [4, 5], [0, 1]), ("ref:1", [4], [2])], by_hand(1, 1, 1, 1, math.tanh(2 - 1))),
        # the prompt with one is the harder: 0.5 against a spread of 1
        ([("tied:1", [4, 5], [0, 1]), ("ref:1", [2.5], [2])], by_hand(1, 1, 1, 0, math.tanh(0.5 - 1))),
        # a wrong answer beats one of the right ones
        ([("tied:1", [4, 5], [4.5]), ("ref:1", [4], [2])], by_hand(0, 1, 0, 0, math.tanh(-0.5 - 1))),
        # level is not above, neither of margins nor of spreads
        ([("tied:1", [4, 5], [4]), ("ref:1", [2], [2])], by_hand(0, 0, 0, 0, math.tanh(-1))),
        ([("tied:1", [4, 5], [3]), ("ref:1", [4], [2])], by_hand(1, 1, 0, 0, math.tanh(0))),
        # no spread: infinitely better, or worse, or nothing over nothing
        ([("tied:1", [4, 4], [3]), ("ref:1", [4], [2])], by_hand(1, 1, 1, 1, 1)),
        ([("tied:1", [4, 4], [5]), ("ref:1", [4], [2])], by_hand(0, 1, 0, 0, -1)),
        ([("tied:1", [4, 4], [4]), ("ref:1", [4], [2])], by_hand(0, 1, 0, 0, 0)),
        # two numbers, and prompts without their twin, which count where they can
        (
            [
                *[("tied:1", [4, 5, 6], [0, 1]), ("ref:1", [4], [2])],  # margin 3, spread 2, of one 2
                *[("tied:2", [1, 2], [3]), ("ref:2", [4], [2, 1])],  # margin −2, spread 1, of one 2
                *[("tied:3", [1, 2], [0]), ("ref:4", [0], [2])],
            ],
            by_hand(2 / 3, 2 / 3, 1 / 2, 0, (math.tanh(2 / 2 - 1) + math.tanh(-2 - 1)) / 2),
        ),
    ],
)
def test_ties(rows, expected):
    table = best_of([("Ties", name, right, wrong) for name, right, wrong in rows])
    assert score(stated, table).subsets["Ties"] == pytest.approx(expected, abs=1e-12)
    shuffled = table[np.random.default_rng(0).permutation(len(table))]
    assert score(stated, shuffled).subsets["Ties"] == pytest.approx(expected, abs=1e-12)


def test_the_score_is_the_mean_of_six_subsets():
    rows = [(subset, "1", [1], [0, 0, 0]) for subset in ("Factuality", "Precise IF", "Math")]
    rows += [(subset, "1", [0], [1, 0, 0]) for subset in ("Safety", "Focus")]
    rows += [("Ties", "tied:0", [4, 4], [3]), ("Ties", "ref:0", [4], [2])]
    found = reward_bench_score(stated, best_of(rows))
    assert found.score == pytest.approx((3 + 1.01) / 6)
    assert list(found.subsets) == ["Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"]


# -------------------------------------------------------------------------------------------------- models and tables


def test_rows_as_they_are_published():
    published = [bench_row() | {"chosen": "a =1", "rejected": "b =0"}]
    assert score(stated, published).version == 1
    second = [bench2_row(subset="Math") | {"chosen": ["a =1"], "rejected": ["b =0", "c =0", "d =3"]}]
    for source in (second, hf_datasets.Dataset.from_list(second), load_reward_bench(second)):
        found = score(stated, source)
        assert (found.version, found.subsets) == (2, {"Math": 0.0})


def test_a_preference_model_with_a_user_and_a_context():
    model, user = demo_model()
    long = "First, one thing. Then another, because it helps. Finally, a third, so that all is well."
    table = best_of([("Math", str(i), [i], [i + 10, i + 20, i + 30]) for i in range(3)])
    row = {"prompt": "p", "chosen": ["One."], "rejected": [long, f"{long} {long}", f"{long} Yes."], "subset": "Focus",
           "id": "1", "num_correct": 1}  # fmt: skip
    assert score(model, [row], context=WISH).subsets == {"Focus": 1.0}
    assert score(model, table, user=user).subsets["Math"] in (0, 1 / 3, 2 / 3, 1)
    with pytest.raises(ValueError, match="since this model was routed by contexts"):
        score(model, table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pairs({"alpaca": [WON]}), "subset: expected subsets of RewardBench, such as .*, got 'alpaca'"),
        (PreferenceTable(["p"], ["a"], ["b"]), "expected rows of RewardBench with the column 'subset'"),
        (pairs({"shp": [WON]})[:0], "expected rows of RewardBench"),
        (
            best_of([("Math", "1", [1, 2], [0])]),
            "Math, id '1': expected one right answer outside the subset Ties, got 2",
        ),
        (best_of([("Ties", "7", [1, 2], [0])]), "Ties: expected an id such as 'ref:7' or 'tied:7', got '7'"),
        (best_of([("Ties", "tied:7", [1], [0])]), "Ties, id 'tied:7': expected several right answers, got 1"),
        (best_of([("Ties", "tied:7", [1, 2], [0])]), "Ties: expected prompts with the ids 'ref:N' and 'tied:N'"),
        (best_of([("Ties", "tied:7", [1, 2], [0, 3])])[:3], "expected each of num_correct = 2 right answers in a pair"),
        (best_of([("Maths", "1", [1], [0])]), "subset: expected subsets of RewardBench, such as 'Factuality'"),
        (pairs({"shp": [(math.inf, 0.0)]}), "expected 2 finite rewards"),
    ],
)
def test_tables_that_cannot_be_scored(table, message):
    with pytest.raises(ValueError, match=message):
        reward_bench_score(stated, table)
