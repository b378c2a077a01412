"""Reward functions inside trainers: TRL by a real run, OpenRLHF and verl by calls as they make them."""

from __future__ import annotations

import doctest
import json
import math
import pickle

import datasets
import numpy as np
import pytest
import torch
from rollout_cases import LONG, QUESTION, SHORT, WISH, assistant_says, demo_model, user_says
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from micropref import PairEncoder, PreferenceModel
from micropref.integrations import openrlhf, trl, verl

TRAINERS = [trl, openrlhf, verl]


@pytest.fixture(scope="module")
def model() -> PreferenceModel:
    return demo_model()[0]


@pytest.fixture(scope="module")
def rewards(model) -> np.ndarray:
    """Of SHORT for a user, and of LONG for an unknown user in a context."""
    user = demo_model()[1]
    return model.reward([QUESTION] * 2, [SHORT, LONG], ["", WISH], [user, None])


# ----------------------------------------------------------------------------------------------------------------- TRL


def test_as_trl_calls_it(model, rewards):
    f, user = trl.reward_function(model), demo_model()[1]
    found = f(
        prompts=[QUESTION] * 3,
        completions=[SHORT, LONG, ""],
        completion_ids=[[1], [2], []],
        user_id=[user, None, user],
        context=[None, WISH, WISH],
        trainer_state=None,
        log_metric=print,
    )
    assert [type(value) for value in found] == [float, float, type(None)]
    np.testing.assert_allclose(found[:2], rewards, rtol=1e-6)
    chat = f(
        prompts=[user_says(QUESTION)] * 3,
        completions=[assistant_says(SHORT), assistant_says(LONG), assistant_says("")],
        user_id=(user, float("nan"), 5),
        context=np.array([None, WISH, ""], dtype=object),
    )
    assert chat == found
    mixed = f(prompts=[QUESTION, user_says(QUESTION)], completions=[assistant_says(SHORT), LONG], context=["", WISH])
    assert mixed[1] == found[1]
    assert f.__name__ == "micropref_reward"


def test_columns_may_be_missing_or_called_otherwise(model, rewards):
    user = demo_model()[1]
    f = trl.reward_function(model)
    assert f([QUESTION], [SHORT]) == model.reward([QUESTION], [SHORT], [""]).tolist()
    named = trl.reward_function(model, user="judge", context="wish")
    found = named(
        prompts=[QUESTION] * 2, completions=[SHORT, LONG], judge=[user, "new"], wish=["", WISH], user_id=[1, 2]
    )
    np.testing.assert_allclose(found, rewards, rtol=1e-6)


def test_unknown_users_get_the_unknown_users_reward(model):
    f = trl.reward_function(model)
    found = f([QUESTION] * 5, [SHORT] * 5, user_id=[None, "never seen", 10**20, -1, ""])
    assert len(set(found)) == 1


@pytest.mark.parametrize("prompts", [[], [QUESTION] * 3])
def test_batches_without_a_text(model, prompts):
    empty = ["", None, []][: len(prompts)]
    assert trl.reward_function(model)(prompts, empty, user_id=[1, 2, 3][: len(prompts)]) == [None] * len(prompts)
    assert trl.reward_function(model, empty=-3)(prompts, empty) == [-3.0] * len(prompts)


def test_what_is_refused(model):
    for module in TRAINERS:
        with pytest.raises(TypeError, match="expected a PreferenceModel, got a str"):
            module.reward_function("model")
        for empty in (math.nan, math.inf, True):
            with pytest.raises(ValueError, match="empty: expected a finite number or None"):
                module.reward_function(model, empty=empty)
    with pytest.raises(ValueError, match="expected as many prompts as responses"):
        trl.reward_function(model)([QUESTION], [SHORT, LONG])


@pytest.mark.parametrize("module", TRAINERS)
def test_a_function_travels_to_other_processes(module, model):
    f = pickle.loads(pickle.dumps(module.reward_function(model)))
    assert f.__name__ == "micropref_reward"
    assert f.model.reward([QUESTION], [SHORT], [WISH]) == model.reward([QUESTION], [SHORT], [WISH])


def tokenizer() -> PreTrainedTokenizerFast:
    """Characters, and a template for chats."""
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<eos>", "<unk>", *" .?:abcdefghijklmnopqrstuvwxyz"])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}. {% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )


class FirstRolloutIsEmpty(LlamaForCausalLM):
    """A policy whose first rollout of every batch ends at once."""

    def generate(self, input_ids=None, **kwargs):
        found = super().generate(input_ids=input_ids, **kwargs)
        found[0, input_ids.shape[1] :] = 0
        found[0, input_ids.shape[1]] = 1
        return found


@pytest.mark.parametrize("conversational", [False, True], ids=["plain", "conversational"])
def test_a_grpo_run(conversational, model, tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    tokens = tokenizer()
    policy = FirstRolloutIsEmpty(
        LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    prompts = ["how do i fall asleep?", "what is tea?"]
    rows = {
        "prompt": [user_says(prompt) for prompt in prompts] if conversational else prompts,
        "user_id": [str(demo_model()[1]), None],
        "context": [None, WISH],
    }
    calls = []
    judge = trl.reward_function(model)

    def micropref_reward(prompts, completions, **columns):
        found = judge(prompts, completions, **columns)
        calls.append((prompts, completions, columns["user_id"], columns["context"], found))
        return found

    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=[judge, micropref_reward],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=8,
            learning_rate=1e-2,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            seed=0,
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokens,
    )
    before = policy.lm_head.weight.detach().clone()
    trainer.train()
    assert trainer.state.global_step == 2
    assert not torch.equal(policy.lm_head.weight, before)
    assert torch.isfinite(policy.lm_head.weight).all()
    assert len(calls) == 2
    for asked, completions, users, contexts, found in calls:
        texts = [completion[0]["content"] if conversational else completion for completion in completions]
        assert texts[0] == ""
        assert found[0] is None
        assert all(math.isfinite(value) for value, text in zip(found, texts, strict=True) if text.strip())
        assert {isinstance(prompt, list) for prompt in asked} == {conversational}
        assert set(users) == set(rows["user_id"])
        assert set(contexts) == {None, WISH}
    logged = trainer.state.log_history[0]
    assert math.isfinite(logged["rewards/micropref_reward/mean"])


# ------------------------------------------------------------------------------------------------------------ OpenRLHF


def test_as_openrlhf_calls_it(model, rewards):
    """Of its single-turn agent: one query with its special tokens, the prompt as the policy read it, one label."""
    user = demo_model()[1]
    reward_func = openrlhf.reward_function(model)
    templated = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    labels = [json.dumps({"user_id": str(user), "prompt": QUESTION}), {"context": WISH, "prompt": user_says(QUESTION)}]
    queries = [f"{templated}{SHORT}<|im_end|>", f"<s>{templated}{LONG}</s><|im_end|>\n"]
    for query, label, expected in zip(queries, labels, rewards, strict=True):
        found = reward_func([query], [templated], [label])
        assert set(found) == {"rewards", "scores", "extra_logs"}
        assert found["rewards"].dtype == torch.float32
        assert found["rewards"].tolist() == pytest.approx([expected], rel=1e-6)
        assert torch.equal(found["rewards"], found["scores"])
    together = reward_func(queries, [templated] * 2, labels)  # as versions before 0.9 call it
    assert together["rewards"].tolist() == pytest.approx(rewards, rel=1e-6)


@pytest.mark.parametrize("response", ["", "</s>", " <|im_end|>\n", "<|im_end|></s>"])
def test_empty_rollouts_of_openrlhf(model, response):
    found = openrlhf.reward_function(model, empty=-4)([QUESTION + response], [QUESTION], [""])
    assert found["rewards"].tolist() == [-4.0]


def test_labels_of_openrlhf(model):
    reward_func = openrlhf.reward_function(model, ends=["<end>"])
    blank = [
        reward_func([QUESTION + SHORT + "<end>"], [QUESTION], labels)["rewards"] for labels in ([""], [None], None)
    ]
    assert blank[0] == blank[1] == blank[2] == np.float32(model.reward([QUESTION], [SHORT], [""])[0])
    for label in ("42", "[1]", "an answer", 5):
        with pytest.raises(ValueError, match="labels: expected an object with the user and the context"):
            reward_func([QUESTION + SHORT], [QUESTION], [label])
    with pytest.raises(ValueError, match="queries: expected the text of the prompt and the response"):
        reward_func([SHORT], [QUESTION], [""])


# ---------------------------------------------------------------------------------------------------------------- verl


def test_as_verl_calls_it(model, rewards):
    """Of its managers "naive", "dapo", "remote": one at a time; of "batch": with plural keywords."""
    compute_score = verl.reward_function(model)
    infos = [
        {"prompt": QUESTION, "user_id": demo_model()[1], "num_turns": 2, "rollout_reward_scores": {}},
        {"prompt": user_says(QUESTION), "context": WISH},
    ]
    single = [
        compute_score(data_source="chat", solution_str=text, ground_truth=None, extra_info=info)
        for text, info in zip([SHORT, LONG], infos, strict=True)
    ]
    assert all(type(score) is float for score in single)
    np.testing.assert_allclose(single, rewards, rtol=1e-6)
    batch = compute_score(
        data_sources=np.array(["chat"] * 3),
        solution_strs=[SHORT, LONG, ""],
        ground_truths=[None] * 3,
        extra_infos=np.array([*infos, None], dtype=object),
    )
    assert batch == pytest.approx([*single, -10.0])
    assert compute_score("chat", SHORT, None, infos[0], reward_router_address="x") == single[0]
    assert compute_score("chat", "", None) == -10.0


def test_verl_passes_no_prompt(world_of_prompts):
    compute_score = verl.reward_function(world_of_prompts)
    with pytest.raises(ValueError, match=r"extra_info: expected the key 'prompt', since this model reads prompts"):
        compute_score("chat", SHORT, None, {"user_id": 1})
    assert math.isfinite(compute_score("chat", SHORT, None, {"prompt": QUESTION}))


@pytest.fixture(scope="module")
def world_of_prompts() -> PreferenceModel:
    rows = [{"prompt": QUESTION, "chosen": SHORT, "rejected": LONG}, {"prompt": "x", "chosen": LONG, "rejected": SHORT}]
    return PreferenceModel.fit(rows, encoder=PairEncoder(template="{prompt} {response}"), n_components=1)


def test_what_reads_prompts(model, world_of_prompts):
    assert model.reads_prompts  # by the router
    assert not PreferenceModel(model.encoder, model.mixture).reads_prompts
    assert world_of_prompts.reads_prompts


@pytest.mark.parametrize("module", TRAINERS)
def test_examples_in_the_docstrings(module):
    failures, tried = doctest.testmod(module)
    assert (failures, tried > 2) == (0, True)
