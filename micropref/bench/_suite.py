"""`run_suite`: from a suite to cells, and from cells to CSV files, tables and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from micropref._support.files import check_folder
from micropref.bench._config import load_suite
from micropref.bench._document import as_html, as_markdown
from micropref.bench._figures import draw
from micropref.bench._jobs import Job, pending
from micropref.bench._loading import embed_data
from micropref.bench._provenance import provenance
from micropref.bench._report import COLUMNS, COMPARISON_COLUMNS, WINNER_COLUMNS, document, failures, write_csv
from micropref.bench._runner import cached_data, forget_data, run_jobs
from micropref.bench._scores import DatasetResult, gather
from micropref.bench._specs import DatasetSpec, MethodSpec, Suite
from micropref.bench._texts import check_encoder, uses_store
from micropref.bench._words import counted
from micropref.distributed import torchrun


@dataclass(frozen=True)
class SuiteResult:
    """Result of `run_suite`.

    Attributes
    ----------
    rows : list of dict
        A row for every data set, method and budget, as in ``results.csv``.
    comparisons : list of dict
        Every paired test of a MiCRo method against a rival that uses no additional information, as in
        ``comparisons.csv``.
    failed : list of str
        "data set/method: reason" of every failure.
    n_run, n_kept : int
        Cells that were computed, and that were on disk.
    files : list of Path
    details : list
        For every data set its rows and methods, with the log-odds of every test row.
    """

    rows: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    failed: list[str]
    n_run: int
    n_kept: int
    files: list[Path]
    details: list[DatasetResult] = field(default_factory=list, repr=False)


def run_suite(
    config: str | os.PathLike[str] | Mapping[str, Any] | Suite,
    output: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    store: str | os.PathLike[str] | None = None,
    n_jobs: int = 1,
    only: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> SuiteResult:
    """Run a suite of data sets × methods × budgets × seeds, or resume it, and write its tables.

    The folder `output` then holds ``results.csv`` (tidy: a row for each data set, method and budget),
    ``comparisons.csv``, ``winners.csv`` (the best of micropref beside the best rival), ``tables.md``, ``tables.html``,
    a figure for each data set if matplotlib is installed, ``suite.json`` (configuration, versions, hashes), and
    ``cells/``. A cell is the result of one data set, seed and method. It is kept under a hash of all it depends on:
    the settings of data set and method, budgets, draws, seed, the content of the data, the code of the modules of
    micropref that the method uses (without docstrings and comments), and the versions of NumPy, SciPy and scikit-learn.
    So an interrupted run resumes where it stopped, and a changed configuration or a changed method computes only what
    depends on the change. Cells that are damaged or failed are computed again.

    Texts are embedded once for all data sets, methods and seeds that have the same encoder, on a GPU where there is
    one; what a store holds is taken from it without loading a model. Of the processes that torchrun starts, each embeds
    its part of the texts, and the first one then runs the suite; the others return no rows.

    Parameters
    ----------
    config : path, mapping or Suite
        A TOML file, or what it holds; see `DatasetSpec` for the keys of ``[[datasets]]``.
    output : path
        Folder of the results.
    data : path, optional
        Folder to which paths of data sets are relative. None: the current one.
    store : path, optional
        Folder of the vectors of texts, with an `EmbeddingStore` for each encoder but the hashing one. None:
        ``embeddings`` in `data`.
    n_jobs : int, default=1
        Processes. Results do not depend on it.
    only : sequence of str, optional
        "DATASET", "DATASET/METHOD" or "/METHOD", with ``*`` for anything; the tables then hold these alone and are
        written to the folder ``only`` in `output`, so that those of the whole suite stay.
    report : callable, optional
        Called with a line of text for every step.

    Returns
    -------
    result : SuiteResult

    Raises
    ------
    ValueError
        For a bad configuration, data that the protocol cannot split, or an `only` that matches nothing.
    OSError
        If data cannot be read, the hub cannot be reached, or results or vectors cannot be written.
    KeyboardInterrupt
        If embedding is interrupted; the message says what was kept, and the same call resumes from there.

    Examples
    --------
    >>> from micropref.bench import run_suite
    >>> result = run_suite("benchmarks/suite_quick.toml", "results")  # doctest: +SKIP
    """
    suite = load_suite(config)
    chosen = _chosen(suite, only)
    folder, source = Path(output), None if data is None else Path(data)
    check_folder(folder)
    vectors = None if store is None else Path(store)
    forget_data()
    datasets = [dataset for dataset in suite.datasets if chosen[dataset.name]]
    for dataset in datasets:
        check_encoder(dataset)
    if not _embedded(datasets, source, vectors, report):
        return SuiteResult([], [], [], 0, 0, [])
    jobs: dict[str, list[Job]] = {}
    for dataset in datasets:
        report(f"{dataset.name}: reading")
        read, methods = cached_data(dataset, source, vectors), chosen[dataset.name]
        jobs[dataset.name] = [
            Job(suite, dataset, seed, methods, folder, source, read.hash, vectors, read.ratings_hash)
            for seed in suite.seeds
        ]
    all_jobs = [job for of in jobs.values() for job in of]
    todo = pending(all_jobs)
    n_run = sum(len(job.methods) for job in todo)
    n_kept = sum(len(job.methods) for job in all_jobs) - n_run
    report(f"{counted(n_run, 'cell')} to run, {n_kept} on disk")
    run_jobs(todo, n_jobs, report)
    results = []
    for name, of in jobs.items():
        report(f"{name}: tables")
        results.append(gather(suite, of))
    place = folder / "only" if only else folder
    place.mkdir(exist_ok=True)
    return _write(suite, results, place, n_run, n_kept)


def _embedded(
    datasets: Sequence[DatasetSpec], data: Path | None, store: Path | None, report: Callable[[str], None]
) -> bool:
    """Whether this process runs the suite: the first one, after all that torchrun started embedded their parts."""
    with torchrun() as ranks:
        for dataset in datasets if ranks.world_size > 1 else ():
            if uses_store(dataset):
                report(f"{dataset.name}: embedding")
                embed_data(dataset, data, store, ranks)
        return ranks.rank == 0


def _chosen(suite: Suite, only: Sequence[str]) -> dict[str, tuple[MethodSpec, ...]]:
    """Methods of every data set that the suite runs there and `only` selects."""
    patterns = [pattern.partition("/") for pattern in only] or [("*", "", "")]
    chosen = {}
    for dataset in suite.datasets:
        fitting = [method or "*" for name, _, method in patterns if fnmatchcase(dataset.name, name or "*")]
        chosen[dataset.name] = tuple(
            one
            for one in suite.methods
            if any(fnmatchcase(one.name, pattern) for pattern in fitting)
            and any(fnmatchcase(one.name, pattern) for pattern in dataset.methods or ("*",))
        )
    if not any(chosen.values()):
        names = ", ".join(one.name for one in suite.datasets)
        methods = ", ".join(one.name for one in suite.methods)
        raise ValueError(f"only: expected data sets among {names}, methods among {methods}, got {', '.join(only)}")
    return chosen


def _write(suite: Suite, results: Sequence[DatasetResult], folder: Path, n_run: int, n_kept: int) -> SuiteResult:
    origin = provenance()
    rows = [row | origin for result in results for row in result.rows]
    comparisons = [test for result in results for test in (*result.comparisons, *result.asked)]
    write_csv(folder / "results.csv", COLUMNS, rows)
    write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, comparisons)
    write_csv(folder / "winners.csv", WINNER_COLUMNS, [row for result in results for row in result.winners])
    figures: dict[str, Path] = {}
    if find_spec("matplotlib") is not None:
        for result in results:
            if any(one.odds is not None for one in result.methods):
                figures[result.name] = folder / f"{result.name}.png"
                draw(figures[result.name], suite, result)
    blocks = document(suite, results, origin, figures)
    (folder / "tables.md").write_text(as_markdown(blocks), encoding="utf-8")
    (folder / "tables.html").write_text(as_html(f"micropref bench: {suite.name}", blocks), encoding="utf-8")
    about = {
        "suite": asdict(suite),
        "provenance": origin,
        "data": {result.name: {"data_hash": result.data_hash, "split_hash": result.split_hash} for result in results},
    }
    (folder / "suite.json").write_text(json.dumps(about, indent=1, default=_plain) + "\n", encoding="utf-8")
    failed = [f"{name}/{one.method.name}: {one.reason}" for name, one in failures(results)]
    names = ("results.csv", "comparisons.csv", "winners.csv", "tables.md", "tables.html", "suite.json")
    files = [*(folder / n for n in names), *figures.values()]
    return SuiteResult(rows, comparisons, failed, n_run, n_kept, files, list(results))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Iterable) else str(value)
