"""Folders of comparisons with the vectors of their texts."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from micropref import MixtureBradleyTerry, PairScaler, make_pairs
from micropref.datasets import EmbeddedPreferences, MalformedRowError, PreferenceSet, load_folder

TEXTS = ["Warum ist der Himmel blau? 🌌", "Rayleigh.", "Wegen der\nStreuung.", "academy", "business", "Weiß nicht."]
PAIRS = [
    {"prompt": TEXTS[0], "chosen": TEXTS[1], "rejected": TEXTS[2], "context": "academy", "query_id": 0},
    {"prompt": TEXTS[0], "chosen": TEXTS[2], "rejected": TEXTS[1], "context": "business", "query_id": 0},
    {"prompt": "", "chosen": TEXTS[5], "rejected": TEXTS[2], "context": "", "query_id": 1},
]
VOTES = [
    {"prompt": 0, "chosen": 2, "rejected": 1, "worker": "56b30860e829", "pair": "arg1_arg2"},
    {"prompt": 0, "chosen": 1, "rejected": 2, "worker": "5ebdc5b6d554", "pair": "arg1_arg2"},
    {"prompt": 0, "chosen": 5, "rejected": 2, "worker": "", "pair": "arg3_arg2"},
]


def write_lines(path: Path, rows: list) -> None:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_votes(path: Path, votes: list[dict]) -> None:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(votes[0]))
        writer.writeheader()
        writer.writerows(votes)


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.random.default_rng(len(texts)).normal(size=(len(texts), 4)).astype(np.float16)


@pytest.fixture(params=[".gz", ""])
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Texts and vectors without comparisons."""
    write_lines(tmp_path / "texts.jsonl.gz", TEXTS)
    np.save(tmp_path / "embeddings.npy", vectors_of(TEXTS))
    return tmp_path


def test_pairs_of_texts(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "wolken"
    folder.mkdir()
    write_lines(folder / f"texts.jsonl{suffix}", TEXTS)
    np.save(folder / "embeddings.npy", vectors_of(TEXTS))
    write_lines(folder / f"pairs.jsonl{suffix}", PAIRS)
    loaded = load_folder(folder)
    assert isinstance(loaded, EmbeddedPreferences)
    assert isinstance(loaded, PreferenceSet)
    assert loaded.train.chosen == [TEXTS[1], TEXTS[2], TEXTS[5]]
    assert loaded.train.rejected == [TEXTS[2], TEXTS[1], TEXTS[2]]
    assert loaded.train.context == ["academy", "business", ""]
    assert loaded.train.extra == {"query_id": [0, 0, 1]}
    assert (loaded.name, loaded.source, loaded.licence, loaded.citation) == (
        *("wolken", str(folder), "unknown", "unknown"),
    )
    assert loaded.test is None
    assert loaded.validation is None
    assert loaded.texts == TEXTS
    assert repr(loaded) == "EmbeddedPreferences('wolken', rows: train 3, licence: unknown)"


def test_votes_are_rows_of_texts(bare: Path, suffix: str) -> None:
    write_votes(bare / f"votes.csv{suffix}", VOTES)
    table = load_folder(str(bare)).train
    assert table.prompt == [TEXTS[0]] * 3
    assert table.chosen == [TEXTS[2], TEXTS[1], TEXTS[5]]
    assert table.rejected == [TEXTS[1], TEXTS[2], TEXTS[2]]
    assert list(table.group) == ["56b30860e829", "5ebdc5b6d554", None]
    assert table.extra == {"pair": ["arg1_arg2", "arg1_arg2", "arg3_arg2"]}


def test_vectors_are_those_of_the_texts(bare: Path) -> None:
    write_lines(bare / "pairs.jsonl", PAIRS)
    loaded = load_folder(bare)
    assert isinstance(loaded.embeddings, np.memmap)
    assert loaded.embeddings.dtype == np.float16
    wanted = vectors_of(TEXTS).astype(np.float32)
    found = loaded.vectors(loaded.train.chosen)
    assert found.dtype == np.float32
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, wanted[[1, 2, 5]])
    np.testing.assert_array_equal(loaded.vectors(text for text in TEXTS[::-1]), wanted[::-1])
    np.testing.assert_array_equal(loaded.vectors(TEXTS[3]), wanted[[3]])
    np.testing.assert_array_equal(loaded.rows([TEXTS[4], TEXTS[4], TEXTS[0]]), [4, 4, 0])
    assert loaded.vectors([]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"text 1: expected a text of .*got 'Himmel'"):
        loaded.vectors([TEXTS[0], "Himmel", "Erde"])


def test_bad_rows_stop_or_are_counted(bare: Path) -> None:
    same = {**VOTES[0], "rejected": 2}
    beyond = {**VOTES[0], "chosen": 6}
    write_votes(bare / "votes.csv", [VOTES[0], same, beyond, VOTES[2]])
    with pytest.raises(MalformedRowError, match=r"votes.csv, line 3: .*got the same text in the columns 'chosen' and"):
        load_folder(bare)
    with pytest.warns(UserWarning, match=r"votes.csv: 2 of 4 rows are left out; the first is line 3"):
        table = load_folder(bare, skip_bad=True).train
    assert table.n_rejected == 2
    assert table.chosen == [TEXTS[2], TEXTS[5]]
    assert sorted(path.name for path in bare.iterdir()) == ["embeddings.npy", "texts.jsonl.gz", "votes.csv"]


@pytest.mark.parametrize("cell", ["6", "-1", "1.0", "", "one"])
def test_votes_name_a_row_that_is_none(bare: Path, cell: str) -> None:
    write_votes(bare / "votes.csv", [VOTES[1], {**VOTES[0], "rejected": cell}])
    with pytest.raises(MalformedRowError, match=rf"line 3: expected a row of the 6.*got '{cell}' in column 'rejected'"):
        load_folder(bare)


def test_votes_without_a_column_and_broken_rows(bare: Path) -> None:
    write_votes(bare / "votes.csv", [{"prompt": 0, "chosen": 2, "worker": "a"}])
    with pytest.raises(MalformedRowError, match=r"expected chosen and.*got the columns 'prompt', 'chosen', 'worker'"):
        load_folder(bare)
    (bare / "votes.csv").write_text("prompt,chosen,rejected\n0,1\n0,1,2\n")
    with pytest.raises(MalformedRowError, match="line 2: expected 3 cells as in the header, got 2"):
        load_folder(bare)
    (bare / "votes.csv").write_text("chosen,rejected\n1,2\n")
    assert load_folder(bare).train.rejected == [TEXTS[2]]


@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected", "context"])
def test_a_text_without_a_vector(bare: Path, column: str) -> None:
    write_lines(bare / "pairs.jsonl", [PAIRS[0], {**PAIRS[1], column: "Nebel"}])
    with pytest.raises(ValueError, match=rf"pairs.jsonl: expected a text.*got 'Nebel' as the {column} of comparison 1"):
        load_folder(bare)


def test_texts_are_strings_and_each_stands_once(bare: Path) -> None:
    write_lines(bare / "pairs.jsonl", PAIRS)
    write_lines(bare / "texts.jsonl.gz", ["a", "b", "a"])
    with pytest.raises(
        MalformedRowError, match=r"texts.jsonl.gz, line 3: expected each text once, got that of line 1 again"
    ):
        load_folder(bare)
    write_lines(bare / "texts.jsonl.gz", ["a", {"text": "b"}])
    with pytest.raises(MalformedRowError, match=r"line 2: expected one JSON string.*got \{'text': 'b'\}"):
        load_folder(bare)
    with gzip.open(bare / "texts.jsonl.gz", "wt") as file:
        file.write('"a"\nplain\n')
    with pytest.raises(MalformedRowError, match=r"line 2: expected one JSON string.*got b'plain\\n'"):
        load_folder(bare)


@pytest.mark.parametrize("array", [np.zeros((5, 4)), np.zeros(6), np.zeros((6, 4), dtype=int)])
def test_one_vector_for_each_text(bare: Path, array: np.ndarray) -> None:
    write_lines(bare / "pairs.jsonl", PAIRS)
    np.save(bare / "embeddings.npy", array)
    with pytest.raises(ValueError, match=r"expected floats of shape \(6, width\), a row for each.*got shape \(.* of"):
        load_folder(bare)


def test_files_that_are_not_there_or_there_twice(bare: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_folder(bare / "nothing")
    with pytest.raises(FileNotFoundError, match=r"expected one of 'pairs.jsonl.gz', .*'votes.csv', got none"):
        load_folder(bare)
    write_lines(bare / "pairs.jsonl", PAIRS)
    write_votes(bare / "votes.csv", VOTES)
    with pytest.raises(
        ValueError, match=r"expected one file of texts and one of comparisons, got 'pairs.jsonl', 'votes.csv'"
    ):
        load_folder(bare)
    (bare / "embeddings.npy").unlink()
    (bare / "votes.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected one of 'embeddings.npy', got none"):
        load_folder(bare)


def test_pickled_arrays_are_refused(bare: Path) -> None:
    write_lines(bare / "pairs.jsonl", PAIRS)
    np.save(bare / "embeddings.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"(?i)pickle|object"):
        load_folder(bare)


@pytest.mark.data
def test_the_real_folders() -> None:
    with pytest.warns(UserWarning, match="rows are left out"):
        dsp = load_folder(Path(os.environ["MICROPREF_DATA"]) / "dsp", skip_bad=True)
    assert (len(dsp.train) + dsp.train.n_rejected, len(dsp.texts)) == (7932, 3272)
    assert set(dsp.train.context) == {"academy", "business", "entertainment", "literature"}
    np.testing.assert_allclose(np.linalg.norm(dsp.vectors(dsp.train.chosen), axis=1), 1, atol=0.01)
    rows = np.flatnonzero([context == "academy" for context in dsp.train.context])
    table = dsp.train[rows]
    X = PairScaler().fit_transform(make_pairs(dsp.vectors(table.chosen), dsp.vectors(table.rejected)))
    test = np.array(table.extra["query_id"]) % 4 == 0
    single = MixtureBradleyTerry(n_components=1).fit(X[~test])
    assert single.score(X[test], None) > 0.65

    with pytest.warns(UserWarning, match="rows are left out"):
        votes = load_folder(Path(os.environ["MICROPREF_DATA"]) / "ukpconvarg1", skip_bad=True)
    assert len(votes.train) + votes.train.n_rejected == 65_340
    assert len(set(votes.train.group)) == 3801
    assert len(set(votes.train.prompt)) == 32
    assert votes.vectors(votes.train.prompt[:7]).shape == (7, 384)
