"""Files of preference data: how they are packed, how their text is encoded, and in which format their rows are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from micropref._support.optional import require
from micropref.datasets._class_names import ClassNames
from micropref.datasets._faults import MalformedRowError
from micropref.datasets._frames import narrow_floats
from micropref.datasets._json import parse_json, parse_json_lines
from micropref.datasets._memory import open_saved
from micropref.datasets._records import Record, Source, records_of_columns
from micropref.datasets._separated import parse_separated

__all__ = ["KINDS", "open_path"]

_LFS = b"version https://git-lfs"
_HEAD = 4096
_STANDARD_INPUT = ("-", "/dev/stdin")
#: Suffixes of compressed files, with the bytes that these begin with.
_PACKED = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}
_PACKED_NAME = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard"}
# The longer mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Formats of files: what a name ends in, and what `format` may say.
KINDS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "feather")
_BINARY = ("parquet", "arrow", "feather")
_UNREADABLE = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet; save it as CSV"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "an archive; unpack it first"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".npy"), "a pickle or array; save the table as JSON lines or Parquet"),
}


class _Text(NamedTuple):
    """Lines of text with their numbers, counted from 1 and without their ends."""

    lines: Iterator[tuple[int, str]]
    encoding: str


def open_path(name: str, encoding: str | None, kind: str | None) -> Source:
    """All rows of a file, of standard input (``-``), or of a folder that ``save_to_disk`` wrote."""
    if encoding is not None:
        _check_encoding(encoding)
    try:
        return _opened(name, encoding, kind)
    except MemoryError:
        pass  # what was read so far is let go of with the error
    raise MemoryError(f"{name}: expected rows that fit into memory, got more than that")


def _opened(name: str, encoding: str | None, kind: str | None) -> Source:
    if name in _STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError("standard input: expected preference data, got a standard input that is closed")
        content: Any = io.BytesIO(sys.stdin.buffer.read())
        return _read(io.BufferedReader(content), "standard input", None, encoding, kind)
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file, got none: there is no such file")
    if path.is_dir():
        return open_saved(path)
    is_regular = stat.S_ISREG(path.stat().st_mode)
    if kind is None and is_regular:
        kind = _kind_of_name(path)
    with open(path, "rb") as file:
        # Beside a pipe of the shell there is no place for rows that are left out.
        return _read(file, str(path), path if is_regular else None, encoding, kind)


def _kind_of_name(path: Path) -> str:
    name = path.name.lower()
    packed = Path(name).suffix if Path(name).suffix in _PACKED else ""
    suffix = Path(name.removesuffix(packed)).suffix
    if suffix[1:] in KINDS and not (packed and suffix[1:] in _BINARY):
        return suffix[1:]
    with open(path, "rb") as file:
        _refuse_pointer(file.read(len(_LFS)), str(path))
    known = ", ".join(f".{one}" for one in KINDS if one not in _BINARY)
    what = f", {_UNREADABLE[suffix]}" if suffix in _UNREADABLE else ""
    raise ValueError(
        f"{path}: expected one of {known} (each also {', '.join(_PACKED)}), .parquet, .arrow or .feather, got "
        f"{path.suffix!r}{what}; if its name only does not say what it is: format='jsonl', in the shell --format jsonl "
        f"(or {', '.join(one for one in KINDS if one != 'jsonl')})"
    )


def _read(file: io.BufferedReader, name: str, path: Path | None, encoding: str | None, kind: str | None) -> Source:
    head = file.peek(_HEAD)[:_HEAD]
    _refuse_pointer(head, name)
    packed = next((suffix for suffix, magic in _PACKED.items() if head.startswith(magic)), "")
    named = path.suffix.lower() if path is not None else ""
    packed = named if named in _PACKED else packed
    with _failing_as_packed(name, packed):
        if packed:
            file = _unpacked(file, packed)
            head = file.peek(_HEAD)[:_HEAD]
            _refuse_pointer(head, name)
        found = _kind_of_content(head, kind, name)
        if found in _BINARY:
            return Source(name, "row", _columnar(file, found, name), path)
        text = _text(file, head, name, encoding)
        parsed = _PARSERS[found](text.lines, name)
    notes = () if text.encoding.startswith("utf-8") else (f"encoding: {text.encoding}",)
    return Source(name, parsed.unit, parsed.records, path, parsed.all_cells_are_text, (*notes, *parsed.notes))


def _refuse_pointer(head: bytes, name: str) -> None:
    if head.startswith(_LFS):
        raise ValueError(
            f"{name}: expected preference data, got a Git LFS pointer, which only names the file; fetch it with: "
            "git lfs pull"
        )


def _kind_of_content(head: bytes, kind: str | None, name: str) -> str:
    """The kind that was named, corrected where only one of JSON and JSON lines can be; else what the content says."""
    begins = head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:1]
    if head.startswith(b"PAR1") and kind is None:
        return "parquet"
    if head.startswith(b"ARROW1") and kind is None:
        return "arrow"
    if kind is None:
        return {b"[": "json", b"{": "jsonl"}.get(begins, "csv")
    if kind in ("jsonl", "ndjson") and begins == b"[":
        return "json"
    return kind


@contextmanager
def _failing_as_packed(name: str, packed: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if not packed or isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{name}: expected a {_PACKED_NAME[packed]} file, got a damaged or incomplete one ({error})"
        ) from None


def _unpacked(file: io.BufferedReader, packed: str) -> io.BufferedReader:
    if packed == ".zst":
        pyarrow = require("pyarrow", "Reading a .zst file")
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))
    opener: Any = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}[packed]
    return io.BufferedReader(opener(fileobj=file) if packed == ".gz" else opener(file))


def _columnar(file: io.BufferedReader, kind: str, name: str) -> list[Record]:
    what = "Parquet" if kind == "parquet" else "Arrow"
    pyarrow = require("pyarrow", f"Reading a {what} file")
    content = pyarrow.BufferReader(file.read())
    try:
        if kind == "parquet":
            table = require("pyarrow.parquet", "Reading a Parquet file").read_table(content)
        else:
            ipc = require("pyarrow.ipc", "Reading an Arrow file")
            is_file = content.read(6) == b"ARROW1"
            content.seek(0)
            table = (ipc.open_file if is_file else ipc.open_stream)(content).read_all()
        table.validate(full=True)  # cells of a damaged file may point anywhere
        names = ClassNames.of_metadata(table.schema.metadata)
        columns = {
            field.name: names.apply(field.name, narrow_floats(table.column(place).to_pylist(), str(field.type)))
            for place, field in enumerate(table.schema)
        }
    except Exception as error:  # whatever a parser makes of damage: pyarrow also raises KeyError, TypeError and others
        if isinstance(error, MemoryError) and not isinstance(error, pyarrow.ArrowException):
            raise
        raise ValueError(f"{name}: expected a {what} file, got one that cannot be read ({error})") from None
    return records_of_columns(columns)


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"encoding: expected a text encoding such as 'utf-8' or 'cp1252', got {encoding!r}") from None


def _text(file: io.BufferedReader, head: bytes, name: str, encoding: str | None) -> _Text:
    marked = next((found for mark, found in _MARKS if head.startswith(mark)), None)
    if encoding is None:
        encoding = marked or "utf-8"
        if marked is None and head.count(0) > len(head) / 4:
            # Of the two bytes of a plain letter, the second is 0 in one order and the first in the other.
            guess = "utf-16-le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16-be"
            raise ValueError(
                f"{name}: expected text in UTF-8, got many zero bytes, as in UTF-16 without a byte-order mark; name "
                f"its encoding: encoding={guess!r}, in the shell --encoding {guess}"
            )
    elif marked == "utf-8-sig" and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = marked
    if encoding in ("utf-8", "utf-8-sig"):
        return _Text(_lines_of_bytes(file, name), encoding)
    return _Text(_decoded_lines(file, name, encoding), encoding)


def _lines_of_bytes(file: io.BufferedReader, name: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        start_of_file = codecs.BOM_UTF8 if number == 1 else b""
        content = line.removeprefix(start_of_file).removesuffix(b"\n")
        try:
            yield number, content.decode()
        except UnicodeDecodeError as error:
            byte = content[error.start]
            raise MalformedRowError(
                f"{name}, line {number}: expected text in UTF-8, got the byte 0x{byte:02x}, which is not UTF-8 there; "
                "all rows of a file have the same encoding, so name it, for example encoding='cp1252', in the shell "
                "--encoding cp1252"
            ) from None


def _decoded_lines(file: io.BufferedReader, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    wrapper = io.TextIOWrapper(file, encoding=encoding, errors="strict", newline="\n")
    lines = iter(wrapper)
    number = 0
    while True:
        number += 1
        try:
            yield number, next(lines).removesuffix("\n")
        except StopIteration:
            wrapper.detach()
            return
        except UnicodeError as error:
            wrapper.detach()
            raise MalformedRowError(
                f"{name}, line {number} or after: expected text in the encoding {encoding}, got bytes that are not "
                f"({error}); name another, for example encoding='utf-8', in the shell --encoding utf-8"
            ) from None


_PARSERS: dict[str, Callable[[Iterator[tuple[int, str]], str], Any]] = {
    "jsonl": parse_json_lines,
    "ndjson": parse_json_lines,
    "json": parse_json,
    "csv": lambda lines, name: parse_separated(lines, name, ","),
    "tsv": lambda lines, name: parse_separated(lines, name, "\t"),
}
