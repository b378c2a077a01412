"""How many texts a second does HashingEncoder embed, and how soon is the command there?

    python benchmarks/bench_hashing.py [--rounds 15] [--shared] [--output benchmarks/results/hashing.csv]

1. `HashingEncoder` against the plain way to the same vectors (`HashingVectorizer`, a sparse product, and all of it in
   double precision, as in version 0.1), in turn, on texts of 10, 30 and 300 words out of 5 000. The bits must be equal.
   The goal is at least twice as many texts a second.
2. ``micropref --help`` against importing typer and rich alone, in turn; the goal is at most three times as long.

Times are those of the CPU, so that other work on the machine counts less; ``--shared`` says in the table that there was
some. The ratio is the median over the pairs of one run.
"""

from __future__ import annotations

import argparse
import csv
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_preferences import commit, installed, processor
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import HashingVectorizer

import micropref
from micropref.embed import HashingEncoder

N_WORDS = 5_000
# Number of words of a text: number of texts.
SIZES = {10: 8_192, 30: 8_192, 300: 1_024}
BATCH = 1_024


class Plain:
    """The same vectors by scikit-learn's vectoriser and a sparse projection."""

    def __init__(self) -> None:
        n_hashes = 2**18
        self.vectorizer = HashingVectorizer(n_features=n_hashes, token_pattern=r"(?u)\w+|[^\w\s]|\n", norm=None)
        stream = np.random.RandomState(0)
        coordinates = stream.randint(0, 767, size=8 * n_hashes, dtype=np.int32)
        signs = 2.0 * stream.randint(0, 2, size=8 * n_hashes, dtype=np.int32) - 1.0
        starts = np.arange(0, 8 * n_hashes + 1, 8, dtype=np.int32)
        self.projection = csr_array((signs, coordinates, starts), shape=(n_hashes, 767))

    def encode(self, texts: list[str]) -> np.ndarray:
        counts = csr_array(self.vectorizer.transform(texts))
        sums = (counts @ self.projection).toarray()
        norms = np.maximum(np.sqrt((sums * sums).sum(axis=1)), 1.0)
        lengths = 0.1 * np.log1p(abs(counts).sum(axis=1))
        return np.hstack([sums / norms[:, None], lengths[:, None]]).astype(np.float32)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def encoders(rounds: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(N_WORDS)])
    plain, fast = Plain(), HashingEncoder()
    rows = []
    for size, n_texts in SIZES.items():
        texts = [" ".join(words[each]) for each in rng.integers(N_WORDS, size=(n_texts, size))]
        batches = [texts[start : start + BATCH] for start in range(0, n_texts, BATCH)]
        assert all(plain.encode(batch).tobytes() == fast.encode(batch).tobytes() for batch in batches)
        found: list[tuple[float, float]] = []
        for _ in range(rounds):
            found.append(
                (
                    cpu_seconds(lambda batches=batches: [plain.encode(batch) for batch in batches]),
                    cpu_seconds(lambda batches=batches: [fast.encode(batch) for batch in batches]),
                )
            )
        question = f"texts of {size} words a second"
        rows.append(row(question, found, n_texts, "at least", 2.0))
    return rows


def child_seconds(*arguments: str) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return used() - before


def help_of_command(rounds: int) -> dict[str, object]:
    found = [
        (child_seconds("-c", "import typer, rich.console"), child_seconds("-m", "micropref", "--help"))
        for _ in range(rounds)
    ]
    shown = row("seconds of micropref --help", found, None, "at most", 3.0)
    return shown | {"ratio": round(statistics.median(ours / base for base, ours in found), 2)}


def row(
    question: str, found: list[tuple[float, float]], n_texts: int | None, kind: str, goal: float
) -> dict[str, object]:
    """Medians of pairs of CPU times: texts a second where they are of texts, and seconds elsewhere."""
    amounts = [[n_texts / each if n_texts else each for each in column] for column in zip(*found, strict=True)]
    baseline, ours = map(statistics.median, amounts)
    p20, p80 = np.quantile(amounts[1], [0.2, 0.8])
    return {
        "question": question,
        "baseline": f"{baseline:.4g}",
        "micropref": f"{ours:.4g}",
        "p20": f"{p20:.4g}",
        "p80": f"{p80:.4g}",
        "ratio": round(statistics.median(base / own for base, own in found), 2),
        "goal": f"{kind} {goal:g}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shared", action="store_true", help="other work ran on the machine")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args()
    rows = [*encoders(arguments.rounds), help_of_command(arguments.rounds)]
    about = {
        "rounds": arguments.rounds,
        "machine_shared": arguments.shared,
        "hardware": processor(),
        "versions": f"micropref {micropref.__version__}, python {platform.python_version()}, "
        + ", ".join(f"{name} {installed(name)}" for name in ("numpy", "scipy", "scikit-learn", "typer", "rich")),
        "commit": commit(),
    }
    for each in rows:
        print("  ".join(f"{name} {value}" for name, value in each.items()))
    if arguments.output:
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
            writer.writeheader()
            writer.writerows(each | about for each in rows)


if __name__ == "__main__":
    main()
