"""What `micropref reproduce paper` plans and prices: other encoders, and what tables without ratings leave unread."""

from __future__ import annotations

import pytest

from micropref.bench import load_suite
from micropref.bench._paper.costs import Machine, as_blocks, costs_of
from micropref.bench._paper.plan import Plan
from micropref.embed import LastTokenEncoder, resolve_encoder


@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize(
    ("encoder", "like"), [("last-token:owner/other", ""), ("owner/other", "owner/sentences"), ("onnx:a/b", "a/b")]
)
def test_another_reward_model_is_priced_as_one_and_no_other_encoder_is(encoder, like, has_gpu):
    machine = Machine("made up", has_gpu, 10**12)
    priced, same = costs_of(Plan(encoder=encoder), has_gpu), costs_of(Plan(encoder=like), has_gpu)
    assert priced == same
    assert str(as_blocks(Plan(encoder=encoder), machine)) == str(as_blocks(Plan(encoder=like), machine))
    small = sum(one.embed_hours for one in costs_of(Plan(encoder="a/b"), has_gpu))
    assert (sum(one.embed_hours for one in priced) > 10 * small) == (not like)


def test_another_reward_model_takes_the_place_of_the_suite_s():
    for dataset in load_suite(Plan(encoder="last-token:owner/other").suite()).datasets:
        found = resolve_encoder(dataset.encoder)
        assert isinstance(found, LastTokenEncoder)
        assert (found.model_name_or_path, found.chat) == ("owner/other", True)


TABLES_OF_RATINGS = {
    (): {"helpsteer2", "rpr"},
    (2,): {"helpsteer2", "rpr"},
    (3,): {"helpsteer2"},
    (1,): set(),
    (4,): set(),
    (5,): set(),
    (6,): set(),
    (7,): set(),
    (3, 5): {"helpsteer2"},
    (5, 6, 7): set(),
}


@pytest.mark.parametrize("tables", TABLES_OF_RATINGS)
@pytest.mark.parametrize("small", [True, False])
def test_ratings_are_read_for_the_tables_that_need_them_alone(tables, small):
    datasets = Plan(tables, small=small).suite()["datasets"]
    read = {one["name"]: one for one in datasets}
    read |= {one["taught_by"]["name"]: one["taught_by"] for one in datasets if isinstance(one.get("taught_by"), dict)}
    assert {name for name, one in read.items() if "ratings" in one} == TABLES_OF_RATINGS[tables]
    for one in datasets:
        teacher = one.get("taught_by", {})
        teacher = teacher if isinstance(teacher, dict) else read[teacher]
        assert ("multi-objective" not in one["methods"]) or "ratings" in one or "ratings" in teacher
    priced = {one.name for one in costs_of(Plan(tables), False)}
    assert ("ultrafeedback" in priced) == ("rpr" in TABLES_OF_RATINGS[tables])
