"""Files as they are packed, encoded and separated; standard input; folders; pointers; and what is said of them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from types import SimpleNamespace

import datasets as hf_datasets
import polars
import pyarrow
import pyarrow.feather
import pytest
from layout_cases import lines
from reading_cases import ROWS, texts, write_text

from micropref.datasets import MalformedRowError, read_preferences
from micropref.datasets.responses import read_responses

EXPECTED = [tuple(row.values()) for row in ROWS]
JSONL = lines(*ROWS)
CSV = b"prompt,chosen,rejected\n" + b"".join(",".join(row.values()).encode() + b"\n" for row in ROWS)


def zstandard(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(("kind", "content"), [(".jsonl", JSONL), (".csv", CSV), (".json", json.dumps(ROWS).encode())])
def test_packed_files(tmp_path, suffix, kind, content):
    path = write_text(tmp_path / f"a{kind}{suffix}", PACKERS[suffix](content))
    assert texts(read_preferences(path)) == EXPECTED


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_packed_files(tmp_path, suffix):
    packed = PACKERS[suffix](JSONL * 50)
    for data in (packed[: len(packed) // 2], packed[:8] + b"\0\xff" * 20, b"plain text\n"):
        with pytest.raises(ValueError, match=r"expected a .* file, got a damaged or incomplete one|expected"):
            read_preferences(write_text(tmp_path / f"a.jsonl{suffix}", data))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv.gz", "a.parquet", "a.json.zst", "a.bin"])
def test_a_pointer_of_git_lfs_is_named_as_one(tmp_path, name):
    path = write_text(tmp_path / name, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ValueError, match=r"got a Git LFS pointer, .*git lfs pull"):
        read_preferences(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", JSONL), ("a.csv", CSV)])
def test_marks_of_encodings(tmp_path, encoding, name, content):
    table = read_preferences(write_text(tmp_path / name, content.decode().encode(encoding)))
    assert texts(table) == EXPECTED
    assert (f"encoding: {encoding}" in table.report.notes) == (encoding != "utf-8-sig")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_another_encoding_is_a_fault_of_the_file(tmp_path, skip_bad):
    path = write_text(tmp_path / "a.csv", "prompt,chosen,rejected\np,fine,no\np,très,no\n".encode("cp1252"))
    with pytest.raises(
        MalformedRowError, match=r"line 3: .*UTF-8, got the byte 0xe8.*encoding='cp1252'.*--encoding cp1"
    ):
        read_preferences(path, skip_bad=skip_bad)
    assert list(tmp_path.iterdir()) == [path]
    assert read_preferences(path, encoding="cp1252").chosen == ["fine", "très"]


def test_encodings_that_are_none_or_do_not_fit(tmp_path):
    path = write_text(tmp_path / "a.jsonl", JSONL)
    for encoding in ("utf-9", "rot13", "hex", ""):
        with pytest.raises(ValueError, match="encoding: expected a text encoding"):
            read_preferences(path, encoding=encoding)
    with pytest.raises(ValueError, match="expected text in the encoding utf-16"):
        read_preferences(path, encoding="utf-16")
    with pytest.raises(ValueError, match="encoding: expected only for a file, got 'cp1252' with a list"):
        read_preferences(ROWS, encoding="cp1252")
    path = write_text(tmp_path / "b.jsonl", JSONL.decode().encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"many zero bytes.*--encoding utf-16-le"):
        read_preferences(path)
    assert texts(read_preferences(path, encoding="utf-16-le")) == EXPECTED


@pytest.mark.parametrize(
    ("name", "separator", "said"),
    [("a.csv", ";", "semicolons"), ("a.csv", "\t", "tabs"), ("a.csv", "|", "bars"), ("a.tsv", ",", "commas")],
)
def test_other_separators_are_found_and_said(tmp_path, name, separator, said):
    path = write_text(tmp_path / name, CSV.decode().replace(",", separator))
    table = read_preferences(path)
    assert texts(table) == EXPECTED
    assert table.report.notes == (f"separated by {said}",)


def test_the_separator_of_the_name_stays_where_the_header_has_it(tmp_path):
    path = write_text(tmp_path / "a.csv", "prompt;x,chosen,rejected\np,a;b,c\n")
    table = read_preferences(path)
    assert (table.chosen, table.report.notes) == (["a;b"], ())


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize(
    "content",
    [JSONL, CSV, json.dumps(ROWS).encode(), gzip.compress(JSONL)],
    ids=["jsonl", "csv", "json", "jsonl.gz"],
)
def test_standard_input(monkeypatch, name, content):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    table = read_preferences(name)
    assert texts(table) == EXPECTED
    assert table.report.source == "standard input"


def test_bad_rows_of_standard_input_are_kept_only_where_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(JSONL + b"{\n")))
    with pytest.warns(UserWarning, match="1 of 4 rows are left out; the first is line 4"):
        assert len(read_preferences("-", skip_bad=True)) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_of_the_shell_is_read_by_its_content(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, JSONL + b"{\n")
    os.close(writer)
    with os.fdopen(reader), pytest.warns(UserWarning, match="1 of 4 rows are left out; the first is line 4"):
        assert texts(read_preferences(f"/dev/fd/{reader}", skip_bad=True)) == EXPECTED


def test_a_format_says_how_a_file_is_written(tmp_path):
    path = write_text(tmp_path / "export.txt", CSV)
    with pytest.raises(ValueError, match=r"got '\.txt'; .*format='jsonl', in the shell --format jsonl"):
        read_preferences(path)
    assert texts(read_preferences(path, format="csv")) == EXPECTED
    with pytest.raises(ValueError, match=r"format: expected one of 'arena', .*, got 'cvs'; did you mean 'csv'"):
        read_preferences(path, format="cvs")
    with pytest.raises(ValueError, match=r"\.xlsx.*a spreadsheet; save it as CSV"):
        read_preferences(write_text(tmp_path / "a.xlsx", "PK"))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_and_json_lines_under_the_name_of_the_other(tmp_path, name):
    for content in (JSONL, json.dumps(ROWS, indent=1).encode(), json.dumps(ROWS).encode()):
        assert texts(read_preferences(write_text(tmp_path / name, content))) == EXPECTED
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    assert texts(read_preferences(write_text(tmp_path / "c.json", json.dumps(columns)))) == EXPECTED


def test_folders_of_save_to_disk(tmp_path):
    rows = hf_datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "one")
    hf_datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "several")
    assert texts(read_preferences(tmp_path / "one")) == EXPECTED
    with pytest.raises(ValueError, match=r"with the splits 'test', 'train'; name one: .*test"):
        read_preferences(tmp_path / "several")
    assert texts(read_preferences(tmp_path / "several" / "train")) == EXPECTED
    with pytest.raises(ValueError, match=r"got a folder with 'one', 'several'; name one of its files"):
        read_preferences(tmp_path)
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="got a folder that cannot be read"):
        read_preferences(tmp_path / "one")


def test_tables_in_memory_and_iterators(tmp_path):
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.feather.write_feather(table, tmp_path / "a.feather")
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    stream = hf_datasets.IterableDataset.from_generator(lambda: iter(ROWS))
    frame = polars.DataFrame(ROWS)
    for source in (table, table.to_batches()[0], table.to_reader(), frame, iter(ROWS), (row for row in ROWS), stream):
        assert texts(read_preferences(source)) == EXPECTED, source
    for name in ("a.feather", "a.arrow"):
        assert texts(read_preferences(tmp_path / name)) == EXPECTED
    for source in (b"prompt", {1, 2}, 7):
        with pytest.raises(TypeError, match="expected a path"):
            read_preferences(source)


def test_responses_come_from_the_same_sources(tmp_path):
    path = write_text(tmp_path / "a.csv", "Question;response\nq;très\n".encode("cp1252"))
    found = read_responses(path, encoding="cp1252")
    assert (found.prompt, found.response) == (["q"], ["très"])
    assert str(found.report) == "prompt: Question; response: response; encoding: cp1252; separated by semicolons"
