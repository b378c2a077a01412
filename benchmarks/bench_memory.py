"""How much memory does a file larger than memory need, and a million users?

    python benchmarks/bench_memory.py [--gigabytes 4] [--folder DIR] [--json]

A float16 file of comparisons is written, then fitted with and without groups and streamed. Reported is the peak of
anonymous memory above what was in use before (pages of the file itself belong to the system's cache and can be dropped
at any time); the bound is 200 MB + 16 bytes a row. The state of 1 000 000 users with K = 10 has to fit in 200 MB.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import shutil
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

import micropref
from micropref import ContextRouter, MixtureBradleyTerry

N_COMPONENTS, N_FEATURES, N_CONTEXT = 4, 384, 384
ROW_BYTES = 2 * (N_FEATURES + N_CONTEXT)
ANSWERS_PER_ANNOTATOR = 5
STREAM_ROWS = 20_000
N_USERS, USER_COMPONENTS, USER_BATCH = 1_000_000, 10, 20_000
USER_BOUND = 200e6


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) * 1024


class Peak:
    """Largest anonymous memory inside a with block, above what there was at its start."""

    def __enter__(self) -> Peak:
        gc.collect()
        self._start = self._largest = anonymous_bytes()
        self._began = time.perf_counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._largest = max(self._largest, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self.end = anonymous_bytes() - self._start
        self.seconds = time.perf_counter() - self._began
        self._done.set()
        self._thread.join()
        self.extra = max(self._largest - self._start, self.end)


def write(path: Path, n_rows: int) -> tuple[np.memmap, np.ndarray, np.ndarray]:
    """Comparisons, labels and annotators; written in blocks, each block the same noise with other labels."""
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(N_COMPONENTS, N_FEATURES)) / 8
    X = np.memmap(path, dtype=np.float16, mode="w+", shape=(n_rows, N_CONTEXT + N_FEATURES))
    block = (rng.normal(size=(8192, N_CONTEXT + N_FEATURES)) / 8).astype(np.float16)
    margins = block[:, N_CONTEXT:].astype(np.float32) @ heads.T
    y = np.empty(n_rows, dtype=np.int8)
    annotator = np.arange(n_rows, dtype=np.int32) // ANSWERS_PER_ANNOTATOR
    for start in range(0, n_rows, len(block)):
        rows = slice(start, min(start + len(block), n_rows))
        size = rows.stop - start
        X[rows] = block[:size]
        taste = annotator[rows] % N_COMPONENTS
        y[rows] = rng.random(size) < 1 / (1 + np.exp(-8 * margins[np.arange(size), taste]))
    X.flush()
    return np.memmap(path, dtype=np.float16, mode="r", shape=X.shape), y, annotator


def measure_file(X: np.memmap, y: np.ndarray, annotator: np.ndarray) -> list[dict]:
    model = MixtureBradleyTerry(N_COMPONENTS, n_context_features=N_CONTEXT, n_init=1, max_iter=3, random_state=0)

    def stream() -> None:
        model.partial_fit(X, y, groups=annotator)

    def stream_in_batches() -> None:
        for start in range(0, len(X), STREAM_ROWS):
            rows = slice(start, start + STREAM_ROWS)
            model.partial_fit(X[rows], y[rows])

    work = {
        "fit": lambda: model.fit(X, y),
        "fit, groups": lambda: model.fit(X, y, groups=annotator),
        "partial_fit, batches": stream_in_batches,
        "partial_fit, groups, one call": stream,
    }
    bound = 200e6 + 16 * len(X)
    rows = []
    for name, run in work.items():
        with warnings.catch_warnings(), Peak() as peak:
            warnings.simplefilter("ignore", ConvergenceWarning)  # three iterations are meant not to be enough
            run()
        rows.append(
            {"work": name, "extra_mb": peak.extra / 1e6, "bound_mb": bound / 1e6, "seconds": peak.seconds}
            | {"holds": peak.extra <= bound}
        )
    return rows


def measure_users() -> dict:
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(USER_COMPONENTS, 2))
    pairs = rng.normal(size=(USER_BATCH, 2))
    mixture = MixtureBradleyTerry(USER_COMPONENTS, n_init=1, alpha=1.0, random_state=0).fit(pairs)
    mixture.coef_ = heads
    router = ContextRouter(mixture)
    with Peak() as peak:
        for start in range(0, N_USERS, USER_BATCH):
            users = 10**9 + 7 * np.arange(start, start + USER_BATCH)
            router.partial_fit(pairs, groups=users)
    return {
        "work": f"state of {len(router.history_):,} users, K = {USER_COMPONENTS}",
        "extra_mb": peak.end / 1e6,
        "bound_mb": USER_BOUND / 1e6,
        "seconds": peak.seconds,
        "holds": peak.end <= USER_BOUND and len(router.history_) == N_USERS,
    }


def report(gigabytes: float, folder: Path) -> dict:
    n_rows = int(gigabytes * 1e9) // ROW_BYTES
    users = measure_users()
    path = folder / "comparisons.float16"
    try:
        rows = measure_file(*write(path, n_rows))
    finally:
        path.unlink(missing_ok=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "micropref": micropref.__version__},
        "file_gb": n_rows * ROW_BYTES / 1e9,
        "n_rows": n_rows,
        "peak_resident_mb": peak * (1024 if sys.platform == "linux" else 1) / 1e6,
        "rows": [*rows, users],
    }


def print_table(found: dict) -> None:
    print(f"{found['machine']}; " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    print(
        f"{found['file_gb']:.2f} GB of float16, {found['n_rows']:,} rows of {N_CONTEXT} + {N_FEATURES}; "
        f"peak resident {found['peak_resident_mb']:.0f} MB, pages of the file included"
    )
    print(f"{'':36}{'extra MB':>9}{'bound MB':>9}{'seconds':>9}")
    for row in found["rows"]:
        verdict = "holds" if row["holds"] else "MISSED"
        print(f"{row['work']:36}{row['extra_mb']:9.0f}{row['bound_mb']:9.0f}{row['seconds']:9.1f}  {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the file")
    parser.add_argument("--folder", type=Path, help="where to write it; default: a temporary folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="micropref-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = report(arguments.gigabytes, folder)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
