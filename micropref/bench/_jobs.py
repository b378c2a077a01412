"""Which cells a suite consists of, under which key each is kept, and which of them are still to be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from micropref.bench import _evaluation, _tasks
from micropref.bench._cells import Cell, key_of, read_cell
from micropref.bench._code import Sources, modules_of, name_of
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._methods.steps import Run
from micropref.bench._specs import KINDS, DatasetSpec, MethodSpec, Suite, resolve_settings

# Keys of a data set that say which rows and ratings it has, and are known by its content.
_WHICH_ROWS = ("targets", "n_units", "ratings", "taught_by", "teacher")


@dataclass(frozen=True)
class Job:
    """The cells of one data set and seed: they share the task and the fits that several methods need.

    Attributes
    ----------
    suite : Suite
    dataset : DatasetSpec
    seed : int
    methods : tuple of MethodSpec
    folder : Path
        Of the results.
    data : Path, optional
        Folder to which paths of data sets are relative.
    data_hash : str
    store : Path, optional
        Folder of the vectors of texts.
    ratings_hash : str, default=""
        Of the ratings of single responses.
    """

    suite: Suite
    dataset: DatasetSpec
    seed: int
    methods: tuple[MethodSpec, ...]
    folder: Path
    data: Path | None
    data_hash: str
    store: Path | None = None
    ratings_hash: str = ""

    @property
    def where(self) -> Path:
        """Folder of the cells."""
        return self.folder / "cells" / self.dataset.name / f"seed{self.seed}"

    @property
    def budgets(self) -> tuple[int, ...]:
        return self.suite.budgets_of(self.dataset)

    @property
    def n_draws(self) -> int:
        return self.dataset.n_draws or self.suite.n_draws

    def task_key(self) -> str:
        """Hash of all that the task depends on. How the data were read does not count: their content does."""
        # Draws and budgets count, whether the data set or the suite says them; which methods are run does not.
        elsewhere = ("n_draws", "budgets", "methods", "revision", "stand_in", "template", "store", *_WHICH_ROWS)
        spec = {name: value for name, value in asdict(self.dataset).items() if name not in elsewhere}
        return key_of([_task_code(), _versions(), spec, self.data_hash, self.seed, self.budgets, self.n_draws])

    def key(self, method: MethodSpec) -> str:
        """Hash of all that the result of a method depends on."""
        settings = resolve_settings(method.kind, method.settings, self.dataset.parameters)
        more: list[int | str] = [method.n_draws] if 0 < method.n_draws < self.n_draws else []
        if "ratings" in KINDS[method.kind].information:
            more.append(self.ratings_hash)
        return key_of([self.task_key(), method_code(method), settings, *more])

    def stored(self, method: MethodSpec) -> Cell | None:
        """The cell of a method, if it is there and up to date."""
        return read_cell(self.where / f"{method.name}.npz", self.key(method))

    def stored_task(self) -> Cell | None:
        """The description of the task, if it is there and up to date."""
        return read_cell(self.where / "task.npz", self.task_key())


def pending(jobs: Sequence[Job]) -> list[Job]:
    """Jobs with the methods whose cells are missing, failed or are out of date."""
    left = []
    for job in jobs:
        todo = []
        for method in job.methods:
            cell = job.stored(method)
            if cell is None or cell.meta["status"] == "failed":
                todo.append(method)
        if todo or job.stored_task() is None:
            left.append(replace(job, methods=tuple(todo)))
    return left


def method_code(method: MethodSpec) -> str:
    """A hash of the code that runs a method on a task."""
    return _code_of(RUNNERS[method.kind])


@cache
def _sources() -> Sources:
    return Sources(Path(__file__).parents[1])


@cache
def _code_of(run: Run) -> str:
    return key_of([name_of(run), _sources().digest({_evaluation.__name__} | modules_of(run))])


@cache
def _task_code() -> str:
    return _sources().digest({_tasks.__name__})


@cache
def _versions() -> list[str]:
    return [version(name) for name in ("numpy", "scipy", "scikit-learn")]
