"""LastTokenEncoder: what it reads, where its vector stands, and that nothing of a model's folder runs."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from causal_cases import CHAT, N_DIMENSIONS, N_POSITIONS, WORDS, fast_tokenizer, save_llama

from micropref.embed import (
    EXCHANGE_TEMPLATE,
    Encoder,
    LastTokenEncoder,
    PairEncoder,
    SentenceTransformerEncoder,
    TruncationWarning,
    encoder_config,
    encoder_from_config,
)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory) -> Path:
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def absolute_model(tmp_path_factory) -> Path:
    """A GPT-2, whose vectors depend on where a token stands, with a tokenizer that pads on the left."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "gpt2"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_embd=N_DIMENSIONS, n_layer=2, n_head=2, n_positions=N_POSITIONS)
    GPT2LMHeadModel(config).save_pretrained(folder)
    fast_tokenizer(padding_side="left", pad_token="</s>").save_pretrained(folder)
    return folder


def encoder_of(folder: Path, **parameters) -> LastTokenEncoder:
    return LastTokenEncoder(str(folder), **{"device": "cpu", "dtype": "float32", **parameters})


def exchange(prompt: str, response: str) -> str:
    return EXCHANGE_TEMPLATE.format(prompt=prompt, response=response)


def states(folder: Path, rendered: str) -> np.ndarray:
    """Hidden states of all tokens of a text, straight from transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    logging.set_verbosity_warning()
    with torch.inference_mode():
        tokens = tokenizer(rendered, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return model(input_ids=tokens).last_hidden_state[0].numpy()


def random_exchanges(seed: int, n: int = 9) -> list[str]:
    rng = np.random.default_rng(seed)
    sides = [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(2 * n)]
    return [exchange(prompt, response) for prompt, response in zip(sides[::2], sides[1::2], strict=True)]


# ------------------------------------------------------------------------------------------------- what the vector is


def test_vector_is_the_state_of_the_last_token_under_the_chat_template(reward_model):
    vectors = encoder_of(reward_model).encode([exchange("say hello", "hello"), "say hello please"])
    assert vectors.dtype == np.float32
    both = states(reward_model, "<s><user>say hello</s><assistant>hello</s>")
    np.testing.assert_allclose(vectors[0], both[-1], atol=2e-6)
    np.testing.assert_allclose(vectors[1], states(reward_model, "<s><user>say hello please</s>")[-1], atol=2e-6)
    # The neighbours are other vectors, and none is scaled.
    assert np.abs(vectors[0] - both[-2]).max() > 0.1
    assert abs(np.linalg.norm(vectors[0]) - 1) > 0.1


def test_score_head_is_a_linear_function_of_the_vector(reward_model):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    text = "<s><user>say hello</s><assistant>go away</s>"
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    tokens = AutoTokenizer.from_pretrained(reward_model)(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        score = model(input_ids=tokens["input_ids"]).logits.item()
    (vector,) = encoder_of(reward_model).encode([exchange("say hello", "go away")])
    assert vector @ model.score.weight.detach().numpy()[0] == pytest.approx(score, abs=1e-5)


def test_beginning_of_sequence_comes_once_with_and_without_a_template(reward_model):
    seen = []
    for chat in (True, False):
        encoder = encoder_of(reward_model, chat=chat)
        preprocess = encoder._model.preprocess
        encoder._model.preprocess = lambda texts, preprocess=preprocess: seen.append(preprocess(texts)) or seen[-1]
        encoder.encode(["say hello"])
    assert [(features["input_ids"] == 1).sum().item() for features in seen] == [1, 1]


def test_plain_text_is_read_as_it_is(reward_model):
    encoder = encoder_of(reward_model, chat=False)
    text = "say <user> hello"
    np.testing.assert_allclose(encoder.encode([text])[0], states(reward_model, f"<s>{text}")[-1], atol=2e-6)
    assert "template=None" in encoder.fingerprint


def test_only_the_first_separator_counts_and_a_prompt_may_be_blank(reward_model):
    encoder = encoder_of(reward_model, chat_template="{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}")
    template = encoder._template
    texts = [exchange("say", "go") + "\x1e<now>", exchange("", "go"), "", exchange("{{ 1 }}", "{response}")]
    assert encoder._render(texts, template) == [
        "user=say;assistant=go\x1e<now>;",
        "user=;assistant=go;",
        "user=;",
        "user={{ 1 }};assistant={response};",
    ]
    assert np.isfinite(encoder.encode(texts)).all()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ strftime_now('%A, %B %d, %y; %Y-%m-%d') }}", "Friday, July 26, 24; 2024-07-26"),
        ("{% macro day() %}{{ strftime_now('%a %H:%M:%S') }}{% endmacro %}{{ day() }}", "Fri 00:00:00"),
        ("{%- if strftime_now is defined %}{% set d = strftime_now('%Y') %}{% endif %}{{ d }}", "2024"),
        ("\n {{ 1 }}", "\n 1"),
    ],
)
def test_date_in_a_template_stands_still(reward_model, written, expected):
    dated = encoder_of(reward_model, chat_template=written + "|{{ messages[0].content }}")
    assert dated._render(["now"], dated._template) == [f"{expected}|now"]


# ------------------------------------------------------------------------------------------------- batches and padding


@pytest.mark.parametrize("model", ["reward_model", "absolute_model"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 1e-2)])
def test_vectors_hardly_depend_on_their_batch_or_the_padding_side(model, dtype, tolerance, request, tmp_path):
    folder = request.getfixturevalue(model)
    texts = random_exchanges(seed=len(model))
    encoder = encoder_of(folder, dtype=dtype)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    lengths = np.linalg.norm(alone, axis=1)
    for side in ("left", "right"):
        shutil.copytree(folder, tmp_path / side)
        path = tmp_path / side / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": side}))
        for batch_size in (2, 9):
            together = encoder_of(tmp_path / side, dtype=dtype, batch_size=batch_size).encode(texts)
            assert (np.linalg.norm(together - alone, axis=1) / lengths).max() < tolerance


def test_long_texts_lose_their_beginning_and_are_counted(reward_model):
    encoder = encoder_of(reward_model, max_length=7)
    fits, long = exchange("go", "now"), exchange("say hello please", "go away")
    vectors = encoder.encode([long, fits, long])
    assert (encoder.n_truncated_, encoder.n_truncated_total_) == (2, 2)
    kept = states(reward_model, "hello please</s><assistant>go away</s>")[-1]
    np.testing.assert_allclose(vectors[[0, 2]], [kept, kept], atol=2e-6)
    np.testing.assert_allclose(vectors[1], states(reward_model, "<s><user>go</s><assistant>now</s>")[-1], atol=2e-6)
    encoder.encode(["go"])
    assert (encoder.n_truncated_, encoder.n_truncated_total_) == (0, 2)
    assert encoder.count_truncated([long, fits, long, long]) == 3


def test_limit_is_the_models_own(reward_model):
    encoder = encoder_of(reward_model)
    encoder.encode(["go " * N_POSITIONS, "go"])
    assert encoder.n_truncated_ == 1
    with pytest.raises(ValueError, match="max_length: expected at most the 64 positions of the model, got 65"):
        encoder_of(reward_model, max_length=N_POSITIONS + 1).encode(["go"])


def test_truncated_dimensions_and_normalisation(reward_model):
    texts = random_exchanges(seed=1)
    full = encoder_of(reward_model).encode(texts)
    np.testing.assert_allclose(encoder_of(reward_model, truncate_dim=5).encode(texts), full[:, :5], atol=2e-6)
    unit = full / np.linalg.norm(full, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder_of(reward_model, normalize=True).encode(texts), unit, atol=2e-6)


# ------------------------------------------------------------------------------------------------------ use and naming


def test_pair_encoder_gives_whole_exchanges(reward_model):
    rows = [
        {"prompt": "say hello", "chosen": "hello", "rejected": "go away"},
        {"prompt": "say very kind words", "chosen": "please", "rejected": "now"},
    ]
    encoder = encoder_of(reward_model)
    fitted = PairEncoder(encoder, template=EXCHANGE_TEMPLATE, context="auto").fit(rows)
    first, second = encoder.encode([exchange(rows[0]["prompt"], rows[0][side]) for side in ("chosen", "rejected")])
    X = fitted.transform(rows)
    np.testing.assert_allclose(X[0, N_DIMENSIONS:], (first - second) * fitted.scale_["response"], atol=1e-4)
    prompt = encoder.encode([rows[0]["prompt"]])[0]
    np.testing.assert_allclose(X[0, :N_DIMENSIONS], prompt * fitted.scale_["prompt"], atol=1e-5)
    restored = PairEncoder.from_config(json.loads(json.dumps(fitted.to_config())))
    np.testing.assert_allclose(restored.transform(rows), X, atol=1e-5)
    with pytest.warns(TruncationWarning, match="2 of 3 distinct texts"):
        PairEncoder(encoder_of(reward_model, max_length=8), template=EXCHANGE_TEMPLATE, context="auto").fit(
            [rows[0] | {"rejected": "go go go"} | {"chosen": "hello hello hello"}]
        )


def test_fingerprint_names_what_vectors_depend_on(reward_model):
    fingerprint = encoder_of(reward_model).fingerprint
    assert fingerprint.startswith("last-token(model='sha256:")
    assert fingerprint.endswith("max_length=64, truncation='left', dtype='float32', normalize=False, dimension=16)")
    assert "pooling='lasttoken', template='sha256:" in fingerprint
    same = encoder_of(reward_model, chat_template=CHAT, batch_size=3, show_progress=False)
    assert same.fingerprint == fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"chat": False},
        {"chat_template": CHAT + " "},
        {"truncate_dim": 4},
        {"max_length": 8},
        {"normalize": True},
        {"dtype": "bfloat16"},
    ],
)
def test_parameters_that_change_vectors_change_the_fingerprint(reward_model, change):
    assert encoder_of(reward_model, **change).fingerprint != encoder_of(reward_model).fingerprint


def test_description_goes_through_json_and_builds_the_encoder_again(reward_model):
    encoder = encoder_of(reward_model, max_length=32, show_progress=False)
    described = json.loads(json.dumps(encoder_config(encoder)))
    assert described["kind"] == "last-token"
    assert not {"device", "show_progress"} & described["params"].keys()
    rebuilt = encoder_from_config(described)
    assert type(rebuilt) is LastTokenEncoder
    assert rebuilt.fingerprint == encoder.fingerprint
    assert isinstance(encoder, Encoder)
    with pytest.raises(ValueError, match="runs code that comes with its model"):
        encoder_from_config(described | {"params": described["params"] | {"trust_remote_code": True}})


def test_encoder_travels_without_its_model_and_shows_what_differs(reward_model):
    encoder = encoder_of(reward_model)
    vectors = encoder.encode(["say hello"])
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 1_000
    np.testing.assert_array_equal(pickle.loads(pickled).encode(["say hello"]), vectors)
    assert repr(LastTokenEncoder("someone/model", max_length=9)) == "LastTokenEncoder('someone/model', max_length=9)"


# ------------------------------------------------------------------------------------------------------------- loading


def test_score_head_is_left_out_without_a_word(reward_model, capfd, caplog):
    encoder_of(reward_model).encode(["say hello"])
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_missing_weights_are_an_error(reward_model, tmp_path):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(reward_model, tmp_path / "torn")
    weights = load_file(tmp_path / "torn" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "torn" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"expected all weights of the transformer of .*torn, got only some(.|\n)*layers.1.mlp.up_proj"
    ):
        encoder_of(tmp_path / "torn").encode(["say hello"])


def test_model_without_a_template_asks_for_one(tmp_path):
    folder = save_llama(tmp_path / "plain", "LlamaForCausalLM", chat_template=None)
    with pytest.raises(
        ValueError, match=r"expected one chat template in .*plain, got none: give chat_template=, or chat"
    ):
        encoder_of(folder).encode(["say hello"])
    assert encoder_of(folder, chat_template=CHAT).encode(["say hello"]).shape == (1, N_DIMENSIONS)
    assert encoder_of(folder, chat=False).encode(["say hello"]).shape == (1, N_DIMENSIONS)


def test_model_that_reads_no_padded_text_is_refused(reward_model, monkeypatch):
    monkeypatch.setattr("micropref.embed.last_token.is_padded_transformer", lambda model: False)
    with pytest.raises(
        ValueError, match="llama: expected a fast tokenizer and a model that reads padded batches of text, got a model"
    ):
        encoder_of(reward_model).encode(["say hello"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"max_length": 0}, "max_length: expected an integer of at least 1 or None, got 0"),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16, bfloat16, got 'int8'"),
        ({"chat": False, "chat_template": "{{ x }}"}, "expected a chat_template or chat=False, got both"),
    ],
)
def test_bad_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LastTokenEncoder("someone/some-model", **arguments)


def test_texts_that_cannot_be_written_are_named_before_any_work():
    with pytest.raises(ValueError, match=r"text 1: expected text that .* got a lone surrogate"):
        LastTokenEncoder("/nowhere/at/all").encode(["fine", "half \ud83d"])


# -------------------------------------------------------------------------------------------------------------- safety


@pytest.mark.parametrize("kind", [LastTokenEncoder, SentenceTransformerEncoder])
def test_code_in_a_models_folder_does_not_run_unless_asked_to(kind, reward_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, trace = tmp_path / "strange", tmp_path / "it-ran"
    shutil.copytree(reward_model, folder)
    code = f"open({str(trace)!r}, 'w').close()\nclass Strange: pass\n"
    for name in ("configuration_strange", "modeling_strange"):
        (folder / f"{name}.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "strange"
    config["auto_map"] = {"AutoConfig": "configuration_strange.Strange", "AutoModel": "modeling_strange.Strange"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        kind(str(folder), device="cpu").encode(["say hello"])
    assert not trace.exists()


def test_modules_of_a_models_folder_do_not_run_unless_asked_to(reward_model, tmp_path):
    folder, trace = tmp_path / "strange", tmp_path / "it-ran"
    shutil.copytree(reward_model, folder)
    (folder / "own_module.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Own: pass\n")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "own_module.Own"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformerEncoder(str(folder), device="cpu").encode(["say hello"])
    assert not trace.exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", [LastTokenEncoder, SentenceTransformerEncoder])
def test_pickled_weights_cannot_run_code(kind, reward_model, tmp_path):
    import torch

    folder, trace = tmp_path / "pickled", tmp_path / "it-ran"
    shutil.copytree(reward_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb(str(trace))}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported"):
        kind(str(folder), device="cpu").encode(["say hello"])
    assert not trace.exists()
