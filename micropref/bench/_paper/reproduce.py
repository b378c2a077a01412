"""Runs the suite of the paper, or a part of it, and writes its tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from micropref.bench._document import Block, Heading, Paragraph, as_html, as_markdown
from micropref.bench._paper.plan import Plan
from micropref.bench._paper.tables import COLUMNS, Results, document, flat_rows
from micropref.bench._provenance import provenance
from micropref.bench._report import write_csv
from micropref.bench._scores import DatasetResult
from micropref.bench._suite import run_suite

__all__ = ["Reproduction", "reproduce_paper"]

_STAND_IN = (
    "Rehearsal: the texts are made up, in the schema of each set, with planted attributes. No figure here says "
    "anything about the published sets; what can be read from them is the order of the methods. Published figures "
    "stand where a real run has them, and have nothing to do with these texts."
)


@dataclass(frozen=True)
class Reproduction:
    """What was found.

    Attributes
    ----------
    blocks : list of Block
        The tables, as they are written.
    rows : list of dict
        A row for every figure, as in ``paper.csv``.
    failed : list of str
        "data set/method: reason" of every failure.
    n_run, n_kept : int
        Cells that were computed, and that were on disk.
    files : list of Path
    """

    blocks: list[Block]
    rows: list[dict[str, Any]]
    failed: list[str]
    n_run: int
    n_kept: int
    files: list[Path]


def reproduce_paper(
    output: str | os.PathLike[str],
    plan: Plan | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    n_jobs: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Reproduction:
    """Run what the tables need and is not there yet, and write ``paper.md``, ``paper.html`` and ``paper.csv``.

    Parameters
    ----------
    output : path
        Folder of the results; an interrupted run resumes there. The results of the suite are in its folder ``suite``.
    plan : Plan, optional
        Which tables, which encoder, real or made up; by default all tables with the published sets.
    data : path, optional
        Folder with copies of published sets, each in a folder named after its loader: ``helpsteer2``, ``rpr``,
        ``ultrafeedback``, ``prism``, ``personal_reward_bench``. What is not there comes from the hub.
    store : path, optional
        Folder of the vectors; by default ``embeddings`` in `output`.
    n_jobs : int, default=1
        Processes. Results do not depend on it.
    report : callable, optional
        Called with a line of text for every step.

    Returns
    -------
    Reproduction

    Raises
    ------
    ValueError
        For a table that does not exist.
    ConnectionError, PermissionError, OSError
        If a set or a model cannot be fetched, or results cannot be written.
    """
    plan = plan or Plan()
    folder = Path(output)
    found = run_suite(
        plan.suite(),
        folder / "suite",
        data=data,
        n_jobs=n_jobs,
        report=report,
        store=folder / "embeddings" if store is None else store,
    )
    if not found.files:  # another process that torchrun started writes them
        return Reproduction([], [], [], found.n_run, found.n_kept, [])
    results = Results(found.rows, found.details)
    tables = plan.chosen()
    origin = provenance()
    versions = ", ".join(
        f"{name} {origin[name]}" for name in ("micropref", "commit", "python", "numpy") if origin[name]
    )
    encoders = ", ".join(sorted({_named(one["encoder"]) for one in plan.suite()["datasets"]}))
    left_out = plan.left_out()
    about = [
        *([_STAND_IN] if plan.small else []),
        *([f"Left out, because it is slow: {'; '.join(left_out)}."] if left_out else []),
        f"Encoder: {encoders}. {versions}; {origin['hardware']}.",
    ]
    blocks = [*document(tables, results, about), Heading(2, "Data"), *_sources(plan, found.details, data)]
    rows = flat_rows(tables, results)
    (folder / "paper.md").write_text(as_markdown(blocks), encoding="utf-8")
    (folder / "paper.html").write_text(as_html("The tables of MiCRo", blocks), encoding="utf-8")
    write_csv(folder / "paper.csv", COLUMNS, rows)
    files = [folder / name for name in ("paper.md", "paper.html", "paper.csv")]
    return Reproduction(blocks, rows, found.failed, found.n_run, found.n_kept, files)


def _sources(plan: Plan, details: Sequence[DatasetResult], data: str | os.PathLike[str] | None) -> list[Block]:
    """For every set: its revision, rows left out, the store of its vectors, texts cut, notes on splits, its hash."""
    sets = {one["name"]: one for one in plan.suite()["datasets"]}
    blocks: list[Block] = []
    for one in details:
        facts = "; ".join(filter(None, (_origin(plan, sets[one.name], data), one.reading, *one.notes)))
        blocks.append(Paragraph(f"{one.name}: {facts}. Data {one.data_hash[:16]} (SHA-256)."))
    return blocks


def _origin(plan: Plan, dataset: Mapping[str, Any], data: str | os.PathLike[str] | None) -> str:
    if plan.small:
        return "made up"
    if data is not None and (copy := Path(data) / dataset["loader"]).exists():
        return f"the copy in {copy}"
    revision = dataset.get("revision", "")
    return f"revision {revision}" if revision else "newest revision"


def _named(encoder: Any) -> str:
    return encoder if isinstance(encoder, str) else str(encoder.get("model", encoder["kind"]))
