"""How much memory and time does `micropref fit` need for a large file of texts?

    python benchmarks/bench_files.py [--rows 200000] [--folder DIR] [--repeats 1] [--json]

A file of JSON lines is written: comparisons of about 850 bytes, every response different, every prompt twice. It is
read by itself, and fitted by the command with the hashing encoder, each in a process of its own, whose peak of resident
memory the system reports. What the same command needs for 100 rows (the interpreter and its libraries) is subtracted.
The bound is 1.5 times the final matrix in single precision, plus the table of texts (the strings and lists that hold
it).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import micropref

WIDTH = 768
ANNOTATOR_ROWS = 20
WORDS_OF_RESPONSE = 52
VOCABULARY = 20_000
SMALL = 100
COMMAND = "from micropref.cli import main; main()"
READ = "import sys; from micropref import read_preferences; print(len(read_preferences(sys.argv[1])))"


class Cost(NamedTuple):
    """What a process needed."""

    peak_bytes: int
    seconds: float
    cpu_seconds: float


def write_rows(path: Path, n_rows: int, seed: int = 0) -> None:
    """Comparisons in which the words of the chosen response are a little different from those of the other."""
    draw = random.Random(seed)
    words = [f"word{i:05d}" for i in range(VOCABULARY)]
    with open(path, "w", encoding="utf-8") as file:
        for row in range(n_rows):
            chosen, rejected = (
                " ".join(
                    [
                        f"r{row}{side}",
                        *draw.choices(words[start : start + VOCABULARY - 2_000], k=WORDS_OF_RESPONSE // 2),
                    ]
                )
                + " "
                + " ".join(draw.choices(("so", "of", "and", "it", "that"), k=WORDS_OF_RESPONSE // 2))
                for side, start in (("a", 0), ("b", 2_000))
            )
            cells = {
                "prompt": f"question {row // 2}: " + " ".join(draw.choices(words, k=10)),
                "chosen": chosen,
                "rejected": rejected,
                "user": row // ANNOTATOR_ROWS,
            }
            file.write(json.dumps(cells) + "\n")


def cost_of(*arguments: str) -> Cost:
    """Run Python with these arguments and wait."""
    began = time.perf_counter()
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=_SILENT)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"expected the command to end well, got the status {status}: {' '.join(arguments)}")
    unit = 1 if platform.system() == "Darwin" else 1024
    return Cost(usage.ru_maxrss * unit, time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


_SILENT = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]


def fit(data: Path, model: Path) -> Cost:
    """The command as it is given in a shell."""
    return cost_of("-c", COMMAND, "fit", str(data), str(model), "-k", "2", "--restarts", "1")


def bytes_of_table(path: Path) -> int:
    """Strings and lists of the table of texts."""
    table = micropref.read_preferences(path)
    total = 0
    for column in (table.prompt, table.chosen, table.rejected):
        total += sys.getsizeof(column) + sum(sys.getsizeof(text) for text in column)
    return total


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the file is written, on a disk with room for it"
    )
    parser.add_argument("--repeats", type=int, default=1, help="the fastest run of each counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        data, small = folder / "data.jsonl", folder / "small.jsonl"
        write_rows(data, options.rows)
        write_rows(small, SMALL)
        empty = fit(small, folder / "small")
        reading = min((cost_of("-c", READ, str(data)) for _ in range(options.repeats)), key=lambda one: one.seconds)
        fits = [fit(data, folder / f"model{i}") for i in range(options.repeats)]
        fitted = min(fits, key=lambda one: one.seconds)
        matrix, table = options.rows * WIDTH * 4, bytes_of_table(data)
        found = {
            "rows": options.rows,
            "file_mb": data.stat().st_size / 1e6,
            "interpreter_mb": empty.peak_bytes / 1e6,
            "matrix_mb": matrix / 1e6,
            "table_mb": table / 1e6,
            "bound_mb": (1.5 * matrix + table) / 1e6,
            "reading_seconds": reading.seconds,
            "reading_mb": reading.peak_bytes / 1e6,
            "fit_mb": (fitted.peak_bytes - empty.peak_bytes) / 1e6,
            "fit_seconds": fitted.seconds,
            "fit_cpu_seconds": fitted.cpu_seconds,
            "within_bound": fitted.peak_bytes - empty.peak_bytes <= 1.5 * matrix + table,
            "micropref": micropref.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
    if options.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        print(f"{key:18} {value:.1f}" if isinstance(value, float) else f"{key:18} {value}")


if __name__ == "__main__":
    main()
