"""Encoders without torch (model2vec, ONNX graphs), and a SentenceTransformer that is loaded already."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from micropref import PairEncoder, PreferenceModel
from micropref.embed import (
    EmbeddingStore,
    EncoderMismatchError,
    LoadedEncoder,
    SentenceTransformerEncoder,
    StaticEncoder,
    encoder_config,
    encoder_from_config,
    resolve_encoder,
)

# The folders of the tests are all that is loaded.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]
WORDS = "the a cat dog sat on mat ran far away query short long text number".split()  # noqa: SIM905
TEXTS = ["the cat sat", "a", "the a cat dog sat on mat ran far away query short long text", "", "number far", "unheard"]
MAX_LENGTH = 12
WIDTH = 16
ROWS = [
    {"prompt": f"query {word}", "chosen": f"short {word}", "rejected": f"long long {word}", "group": index % 3}
    for index, word in enumerate(WORDS)
]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator([WORDS], trainers.WordLevelTrainer(special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


@pytest.fixture(scope="module")
def static_folder(tmp_path_factory) -> Path:
    from model2vec import StaticModel

    vectors = np.random.default_rng(0).normal(size=(tokenizer().get_vocab_size(), WIDTH)).astype(np.float32)
    folder = tmp_path_factory.mktemp("static") / "model"
    StaticModel(vectors, tokenizer(), normalize=True, max_length=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def transformer_folder(tmp_path_factory) -> Path:
    """A two-layer BERT as sentence-transformers saves it, with the same transformer as an ONNX graph beside."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("transformer")
    made = tokenizer()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=made.get_vocab_size(),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    bert = BertModel(config).eval()
    bert.save_pretrained(folder / "bert")
    fast.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=MAX_LENGTH)
    prompts = {"query": "query "}
    modules = [transformer, Pooling(WIDTH, "mean"), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    model.save(str(folder / "tiny"), create_model_card=False)
    (folder / "tiny" / "onnx").mkdir()
    export(bert, folder / "tiny" / "onnx" / "model.onnx")
    return folder / "tiny"


def export(bert, path: Path) -> None:
    import torch

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, input_ids, attention_mask, token_type_ids):
            found = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return found.last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones((2, 4), dtype=torch.int64) for _ in names)
    axes = {name: {0: "texts", 1: "tokens"} for name in [*names, "last_hidden_state"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The exporter that needs no package besides onnx.
        torch.onnx.export(
            States().eval(), example, str(path), input_names=names, output_names=["last_hidden_state"],
            dynamic_axes=axes, dynamo=False,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- model2vec


def test_static_vectors_are_means_of_token_vectors(static_folder):
    """Of all tokens: the length that the model was distilled with cuts nothing, and unknown words count nothing."""
    from safetensors.numpy import load_file

    tokens = load_file(static_folder / "model.safetensors")["embeddings"]
    vocabulary = tokenizer().get_vocab()
    encoder = StaticEncoder(str(static_folder), normalize=False)
    vectors = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        rows = [vocabulary[word] for word in text.split() if word in vocabulary]
        expected = tokens[rows].mean(axis=0) if rows else np.zeros(WIDTH)
        np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-6)
    assert vectors.dtype == np.float32
    assert encoder.count_truncated(TEXTS) == 0
    assert encoder.encode([]).shape == (0, WIDTH)


@pytest.mark.parametrize("truncate_dim", [None, 5])
def test_static_vectors_have_length_one_where_the_model_says_so(static_folder, truncate_dim):
    plain = StaticEncoder(str(static_folder), normalize=False).encode(TEXTS[:3])[:, :truncate_dim]
    scaled = StaticEncoder(str(static_folder), truncate_dim=truncate_dim).encode(TEXTS[:3])
    np.testing.assert_allclose(scaled, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-5)


def test_static_fingerprint_names_content_and_parameters(static_folder, tmp_path):
    encoder = StaticEncoder(str(static_folder))
    assert encoder.fingerprint.startswith("model2vec(model='sha256:")
    assert f"normalize=True, dimension={WIDTH}" in encoder.fingerprint
    others = [StaticEncoder(str(static_folder), truncate_dim=4), StaticEncoder(str(static_folder), normalize=False)]
    assert len({encoder.fingerprint, *(other.fingerprint for other in others)}) == 3
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in static_folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    (moved / "README.md").write_text("edited")
    assert StaticEncoder(str(moved)).fingerprint == encoder.fingerprint
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"normalize": False}))
    assert StaticEncoder(str(moved)).fingerprint != encoder.fingerprint


def test_static_errors(static_folder, tmp_path):
    with pytest.raises(ValueError, match=f"truncate_dim: expected at most {WIDTH}, .* got 99"):
        StaticEncoder(str(static_folder), truncate_dim=99).encode(["a"])
    with pytest.raises(ValueError, match="truncate_dim: expected an integer of at least 1 or None, got 0"):
        StaticEncoder(str(static_folder), truncate_dim=0)
    with pytest.raises(FileNotFoundError, match=r"expected a folder that holds a model, got ./nowhere"):
        StaticEncoder("./nowhere").encode(["a"])
    with pytest.raises(ValueError, match="expected a model2vec model, got none"):
        StaticEncoder(str(tmp_path)).encode(["a"])
    with pytest.raises(TypeError, match="text 0: expected a string"):
        StaticEncoder(str(static_folder)).encode([1])


# --------------------------------------------------------------------------------------------------------------- ONNX


def write_pooling(source: Path, target: Path, pooling: dict, *, normalize: bool = False) -> Path:
    """A copy of a model with another pooling."""
    import shutil

    shutil.copytree(source, target)
    (target / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": WIDTH, **pooling}))
    if not normalize:
        modules = json.loads((target / "modules.json").read_text())
        (target / "modules.json").write_text(json.dumps(modules[:2]))
    return target


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_graph_gives_the_vectors_of_torch(transformer_folder, batch_size):
    torch = SentenceTransformerEncoder(str(transformer_folder), device="cpu")
    graph = SentenceTransformerEncoder(str(transformer_folder), backend="onnx", batch_size=batch_size)
    np.testing.assert_allclose(graph.encode(TEXTS), torch.encode(TEXTS), rtol=0, atol=1e-6)
    assert graph.n_truncated_ == torch.n_truncated_ == graph.count_truncated(TEXTS) == 1
    assert graph.encode([]).shape == (0, WIDTH)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "cls"},
        {"pooling_mode": "mean"},
        {"pooling_mode": ["max"]},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_cls_token": False},
        {"pooling_mode_mean_tokens": True},
    ],
    ids=str,
)
def test_poolings_are_those_of_torch(transformer_folder, tmp_path, pooling):
    folder = str(write_pooling(transformer_folder, tmp_path / "model", pooling))
    expected = SentenceTransformerEncoder(folder, device="cpu").encode(TEXTS)
    found = SentenceTransformerEncoder(folder, backend="onnx").encode(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "parameters",
    [{"prompt": "query "}, {"prompt_name": "query"}, {"max_length": 4}, {"truncate_dim": 3}, {"normalize": True}],
)
def test_parameters_mean_the_same_with_a_graph(transformer_folder, parameters):
    torch = SentenceTransformerEncoder(str(transformer_folder), device="cpu", **parameters)
    graph = SentenceTransformerEncoder(str(transformer_folder), backend="onnx", **parameters)
    np.testing.assert_allclose(graph.encode(TEXTS), torch.encode(TEXTS), rtol=0, atol=1e-6)
    plain = SentenceTransformerEncoder(str(transformer_folder), backend="onnx")
    assert (graph.fingerprint == plain.fingerprint) == ("normalize" in parameters)  # the model does that itself
    assert graph.n_truncated_ == torch.n_truncated_


def test_a_graph_has_a_fingerprint_of_its_own(transformer_folder, tmp_path):
    import shutil

    graph = SentenceTransformerEncoder(str(transformer_folder), backend="onnx")
    assert graph.fingerprint.startswith("onnx(model='sha256:")
    assert "#onnx/model.onnx'" in graph.fingerprint
    shutil.copytree(transformer_folder, tmp_path / "copy")
    copied = tmp_path / "copy/onnx/model.onnx"
    assert SentenceTransformerEncoder(str(tmp_path / "copy"), backend="onnx").fingerprint == graph.fingerprint
    shutil.copy(copied, tmp_path / "copy/quantized.onnx")
    other = SentenceTransformerEncoder(str(tmp_path / "copy"), backend="onnx", file_name="quantized.onnx")
    assert other.fingerprint != graph.fingerprint
    np.testing.assert_array_equal(other.encode(TEXTS), graph.encode(TEXTS))


def test_errors_of_graphs(transformer_folder, tmp_path):
    name = str(transformer_folder)
    with pytest.raises(ValueError, match="backend: expected one of 'torch', 'onnx', got 'jax'"):
        SentenceTransformerEncoder(name, backend="jax")
    with pytest.raises(ValueError, match=r"file_name: expected None with backend='torch', got 'a.onnx'"):
        SentenceTransformerEncoder(name, file_name="a.onnx")
    for outside in ("../model.onnx", "/model.onnx", "onnx/../../model.onnx"):
        with pytest.raises(ValueError, match="file_name: expected a path within the model"):
            SentenceTransformerEncoder(name, backend="onnx", file_name=outside)
    with pytest.raises(ValueError, match=r"expected dtype='float32' .* got dtype='float16'"):
        SentenceTransformerEncoder(name, backend="onnx", dtype="float16")
    with pytest.raises(FileNotFoundError, match=r"expected an ONNX graph, a.onnx, in the model, got none"):
        SentenceTransformerEncoder(name, backend="onnx", file_name="a.onnx").encode(["a"])
    with pytest.raises(ValueError, match=r"device: expected one that onnxruntime provides .*, got 'tpu'"):
        SentenceTransformerEncoder(name, backend="onnx", device="tpu").encode(["a"])
    with pytest.raises(ValueError, match="max_length: expected at most the 32 positions of the model, got 99"):
        SentenceTransformerEncoder(name, backend="onnx", max_length=99).encode(["a"])
    odd = write_pooling(transformer_folder, tmp_path / "odd", {"pooling_mode": "weightedmean"})
    with pytest.raises(ValueError, match="expected one pooling of mean, cls, max, lasttoken"):
        SentenceTransformerEncoder(str(odd), backend="onnx").encode(["a"])
    modules = [
        *json.loads((odd / "modules.json").read_text()),
        {"type": "sentence_transformers.models.Dense", "path": ""},
    ]
    (odd / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (odd / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="expected Transformer, Pooling and Normalize in an ONNX model, got 'Dense'"):
        SentenceTransformerEncoder(str(odd), backend="onnx").encode(["a"])
    (odd / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a fast tokenizer, tokenizer.json, in the model, got none"):
        SentenceTransformerEncoder(str(odd), backend="onnx").encode(["a"])


# ---------------------------------------------------------------------------------------------------------- both light


def light(request, kind: str):
    if kind == "model2vec":
        return f"model2vec:{request.getfixturevalue('static_folder')}"
    return f"onnx:{request.getfixturevalue('transformer_folder')}"


@pytest.mark.parametrize("kind", ["model2vec", "onnx"])
def test_light_encoders_need_no_torch(request, kind):
    code = f"""
import sys
from micropref import PreferenceModel
model = PreferenceModel.fit({ROWS!r}, encoder={light(request, kind)!r}, n_components=1)
print(model.rank("query cat", ["long long cat", "short cat"]))
print(sorted({{"torch", "sentence_transformers", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "[1 0]\n[]\n"), done.stderr


@pytest.mark.parametrize("kind", ["model2vec", "onnx"])
def test_light_encoders_in_stores_and_models(request, kind, tmp_path):
    name = light(request, kind)
    encoder = resolve_encoder(name)
    assert clone(encoder) is encoder
    assert pickle.loads(pickle.dumps(encoder)).fingerprint == encoder.fingerprint
    assert str(tmp_path) not in repr(encoder)
    config = json.loads(json.dumps(encoder_config(encoder)))
    assert encoder_from_config(config).fingerprint == encoder.fingerprint
    model = PreferenceModel.fit(ROWS, encoder=PairEncoder(name, store=tmp_path / "store"), n_components=1)
    model.save(tmp_path / "model")
    loaded = PreferenceModel.load(tmp_path / "model", store=tmp_path / "store")
    np.testing.assert_array_equal(loaded.log_odds(ROWS), model.log_odds(ROWS))
    store = EmbeddingStore(tmp_path / "other", encoder, dtype="float32")
    np.testing.assert_allclose(store.encode(TEXTS), encoder.encode(TEXTS), rtol=0, atol=1e-6)
    with pytest.raises(EncoderMismatchError):
        PreferenceModel.load(tmp_path / "model", encoder="hashing")


@pytest.mark.parametrize("name", ["model2vec:", "onnx: ", "last-token:", "", "  "])
def test_a_kind_without_a_name(name):
    with pytest.raises(ValueError, match=r"expected 'hashing', 'model2vec:NAME', .*got"):
        resolve_encoder(name)


# ----------------------------------------------------------------------------------------- a loaded SentenceTransformer


@pytest.fixture
def loaded_model(transformer_folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(transformer_folder), device="cpu")


def test_a_loaded_model_is_accepted_as_it_is(loaded_model, transformer_folder, tmp_path):
    expected = SentenceTransformerEncoder(str(transformer_folder), device="cpu")
    encoder = resolve_encoder(loaded_model)
    assert isinstance(encoder, LoadedEncoder)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected.encode(TEXTS), rtol=0, atol=1e-6)
    model = PreferenceModel.fit(ROWS, encoder=loaded_model, n_components=1)
    fitted = PairEncoder(loaded_model, store=tmp_path / "store").fit(ROWS)
    assert fitted.fingerprint_ == model.encoder.fingerprint_
    store = EmbeddingStore(tmp_path / "store", resolve_encoder(loaded_model))
    np.testing.assert_allclose(store.encode(TEXTS), encoder.encode(TEXTS), atol=1e-3)  # in float16
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot be rebuilt from its description; pass it as encoder="):
        PreferenceModel.load(tmp_path / "model")
    again = PreferenceModel.load(tmp_path / "model", encoder=loaded_model)
    np.testing.assert_array_equal(again.log_odds(ROWS), model.log_odds(ROWS))


def test_a_loaded_model_that_learns_is_another_encoder(loaded_model):
    import torch

    before = resolve_encoder(loaded_model)
    assert resolve_encoder(copy.deepcopy(loaded_model)).fingerprint == before.fingerprint
    with torch.no_grad():
        next(iter(loaded_model.parameters()))[0, 0] += 1.0
    assert resolve_encoder(loaded_model).fingerprint != before.fingerprint
    assert "a SentenceTransformer" in repr(before)
    assert pickle.loads(pickle.dumps(before)).fingerprint == before.fingerprint


def test_a_loaded_model_in_training_mode_drops_nothing_out(loaded_model):
    loaded_model.train()
    encoder = LoadedEncoder(loaded_model)
    np.testing.assert_array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))


def test_what_is_no_loaded_model():
    with pytest.raises(TypeError, match="model: expected a SentenceTransformer, got a str"):
        LoadedEncoder("name")
    with pytest.raises(TypeError, match="a loaded SentenceTransformer, or an object with encode"):
        resolve_encoder(object())
