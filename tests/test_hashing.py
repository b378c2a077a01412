"""HashingEncoder, bit by bit, against a plain implementation on scikit-learn's HashingVectorizer; and what it keeps."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import HashingVectorizer

from micropref.embed import HashingEncoder, _token_bins, hashing

SETTINGS = (
    {"n_features": 8, "n_hashes": 3},  # nearly all tokens share their bin with one of the other sign
    {"n_features": 2, "n_hashes": 50, "seed": 1},
    {"n_features": 40, "n_hashes": 2**12},
    {"n_features": 16, "n_hashes": 64, "ngram_range": (1, 2)},
    {"n_features": 16, "n_hashes": 64, "ngram_range": (2, 4)},
)
# White space of all kinds, letters whose lower case depends on what follows or is longer, marks, and other scripts.
LETTERS = st.sampled_from("aB1_ \n\t\r\x1c\x85\u2028\u00a0.!?-'ΣσςİßǅÀ\u0301\u0345東京😀\U0001f1e9\x00")
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(LETTERS, max_size=40),
    st.lists(st.sampled_from(["the", "The", "cat,", "cat", "\n", "(sat)", "x" * 70, "ΟΔΟΣ", "東京"]), max_size=60).map(
        " ".join
    ),
)


def plain_vectors(texts: list[str], n_features=768, n_hashes=2**18, ngram_range=(1, 1), seed=0) -> np.ndarray:
    """What the class says, in float64, with all texts at once."""
    vectorizer = HashingVectorizer(
        n_features=n_hashes,
        token_pattern=r"(?u)\w+|[^\w\s]|\n",
        ngram_range=ngram_range,
        norm=None,
        alternate_sign=True,
    )
    counts = csr_array(vectorizer.transform(texts))
    stream = np.random.RandomState(seed)
    coordinates = stream.randint(0, n_features - 1, size=8 * n_hashes, dtype=np.int32)
    signs = 2.0 * stream.randint(0, 2, size=8 * n_hashes, dtype=np.int32) - 1.0
    starts = np.arange(0, 8 * n_hashes + 1, 8, dtype=np.int32)
    sums = (counts @ csr_array((signs, coordinates, starts), shape=(n_hashes, n_features - 1))).toarray()
    norms = np.maximum(np.sqrt((sums * sums).sum(axis=1)), 1.0)
    lengths = 0.1 * np.log1p(abs(counts).sum(axis=1))
    return np.hstack([sums / norms[:, None], lengths[:, None]]).astype(np.float32)


@pytest.mark.parametrize("parameters", SETTINGS, ids=str)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_vectors_are_those_of_the_plain_implementation_to_the_bit(parameters, texts):
    encoder, expected = HashingEncoder(**parameters), plain_vectors(texts, **parameters)
    assert encoder.encode(texts).tobytes() == expected.tobytes()
    assert encoder.encode(texts).tobytes() == expected.tobytes()  # now from what was kept


def test_default_vectors_of_many_texts_are_those_of_the_plain_implementation_to_the_bit():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(300)] + ["don't", "well,", "a\nb", "É", "...", "y" * 80])
    texts = [" ".join(rng.choice(words, size=size)) for size in rng.integers(0, 60, size=1_500)]
    texts += ["", " ", "\n\n", "word " * 20_000, "z" * 100_000, "!" * 3_000]
    assert len(set(texts)) > 1_400
    assert HashingEncoder().encode(texts).tobytes() == plain_vectors(texts).tobytes()


def test_every_character_is_read_as_the_plain_implementation_reads_it():
    """Where words end is decided by white space here and by a pattern there."""
    letters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    texts = ["a" + "b".join(letters[start : start + 64]) for start in range(0, len(letters), 64)]
    chosen = [text for i, text in enumerate(texts) if i < 1_100 or i % 16 == 0]  # all of the first planes' scripts
    parameters = {"n_features": 64, "n_hashes": 2**12}
    assert HashingEncoder(**parameters).encode(chosen).tobytes() == plain_vectors(chosen, **parameters).tobytes()


def test_what_is_kept_is_bounded_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(_token_bins, "_MOST_PIECES", 8)
    texts = [f"word{i} word{i + 1} word{i // 9} again again" for i in range(200)] + ["x" * 65]
    encoder = HashingEncoder(32, n_hashes=512)
    kept = encoder._bins._kept
    for text in texts:
        assert encoder.encode([text]).tobytes() == plain_vectors([text], 32, 512).tobytes()
        assert len(kept) <= 8
    assert all(len(piece) <= _token_bins._LONGEST_PIECE for piece in kept)


def test_a_piece_is_hashed_once_while_it_is_kept(monkeypatch):
    hashed = []
    right = _token_bins.murmurhash3_32
    monkeypatch.setattr(_token_bins, "murmurhash3_32", lambda token: hashed.append(token) or right(token))
    encoder = HashingEncoder(8, n_hashes=64)
    for _ in range(3):
        encoder.encode(["one two, one", "two, three\n"])
    assert sorted(hashed) == sorted([b"one", b"two", b",", b"three", b"\n"])


def test_threads_share_what_is_kept(monkeypatch):
    monkeypatch.setattr(_token_bins, "_MOST_PIECES", 16)
    texts = [f"w{i % 50} w{i % 31} w{i % 17}!" for i in range(600)]
    expected = plain_vectors(texts, 16, 256).tobytes()
    encoder, found = HashingEncoder(16, n_hashes=256), []
    threads = [
        threading.Thread(target=lambda: found.extend(encoder.encode(texts).tobytes() for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20


def test_what_is_kept_is_neither_pickled_nor_copied():
    encoder = HashingEncoder(8, n_hashes=64)
    size = len(pickle.dumps(encoder))
    expected = encoder.encode(["some words that are kept"]).tobytes()
    assert len(pickle.dumps(encoder)) == size
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert "_bins" not in vars(other)
        assert other.encode(["some words that are kept"]).tobytes() == expected


def test_another_process_gives_the_same_bits():
    """Whatever seed Python's own hashes have."""
    code = (
        "import sys; from micropref.embed import HashingEncoder; "
        "sys.stdout.write(HashingEncoder(8, n_hashes=64).encode(['Keep it short, please!', 'b a']).tobytes().hex())"
    )
    expected = plain_vectors(["Keep it short, please!", "b a"], 8, 64).tobytes().hex()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == expected


@given(sizes=st.lists(st.integers(0, 30), max_size=40))
def test_blocks_are_short(sizes):
    texts = ["x" * size for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_BLOCK_ROWS", 7)
        patch.setattr(hashing, "_BLOCK_LETTERS", 50)
        blocks = [texts[rows] for rows in hashing._blocks(texts)]
    assert [text for block in blocks for text in block] == texts
    assert all(1 <= len(block) <= 7 and sum(map(len, block[:-1])) < 50 for block in blocks)


def test_memory_beside_the_vectors_does_not_grow_with_the_texts():
    encoder = HashingEncoder(128)
    texts = [f"answer {i} about w{i % 97}" for i in range(9_000)]
    encoder.encode(texts[:2])
    peaks = []
    for n in (3_000, 9_000):
        tracemalloc.start()
        vectors = encoder.encode(texts[:n])
        peaks.append(tracemalloc.get_traced_memory()[1] - vectors.nbytes)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3e6  # pieces that are kept, and the list of texts
