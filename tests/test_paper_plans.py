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
