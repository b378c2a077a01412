"""What the real run needs: texts, bytes, hours of embedding and minutes of fitting. Arithmetic from measured rates.

Nothing here was measured on the sets themselves. Sizes are the published ones, rates those of the files in
``benchmarks/results``; what is neither, such as `ASSUMED`, is said beside the table.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from micropref.bench._document import Block, Grid, Heading, Paragraph
from micropref.bench._paper.plan import Plan

# File of benchmarks/results and its question to texts a second, and to characters of a text.
RATES: Mapping[str, tuple[str, str, float, float]] = {
    "gpu": ("embed_cuda.csv", "texts per second through the store", 2632.0, 408.0),
    "cpu": ("embed.csv", "texts per second through the store", 78.19, 254.0),
    "hashing": ("hashing.csv", "texts of 300 words a second", 10020.0, 1600.0),
}
# Seconds of one seed on dsp by method there, of suite/results.csv: 6 626 rows of 384 features, four heads, one thread.
FIT_SECONDS: Mapping[str, float] = {
    "single": 0.8304,
    "static": 5.594,
    "micro-context": 7.1798,
    "micro-history": 5.6874,
    "micro-gated": 10.3772,
    "hierarchical": 70.073,
    "ensemble": 16.7686,
    "hyre": 17.1718,
    "hyre-micro": 5.6848,
    "lore": 31.3394,
    "user-rewards": 4.1514,
    "oracle": 0.2456,
}
_FIT_ROWS, _FIT_WIDTH, _FIT_HEADS = 6626, 384, 4
# The method there that takes as long as a method of the paper's suite, where the names differ.
_AS = {"best_head": "static", "ensemble_best": "ensemble", "multi_objective": "micro-gated"}
# Parameters of the model that was measured, and of the suite's encoder, which its name says.
_MEASURED_PARAMETERS, _PARAMETERS, _WIDTH, _SENTENCE_WIDTH = 22e6, 3e9, 3072, 384
#: Characters of a prompt with its response, on average.
ASSUMED = 1600.0
_HALF = 2  # bytes of a number


@dataclass(frozen=True)
class _Size:
    """Published sizes, bounds on them or, where it says so, assumptions: what is embedded, comparisons in training."""

    texts: int
    comparisons: int
    how: str


_SIZES: Mapping[str, _Size] = {
    "helpsteer2": _Size(21_362 + 10_681 + 5, 5 * 10_681, "responses, prompts; at most five comparisons of a pair"),
    "rpr": _Size(5 * 11_167, 2 * 10_167, "two responses, a prompt and two criteria of each record"),
    "prism": _Size(68_371 + 34_185, 68_371, "answers, and at most half as many prompts; their number is assumed"),
    "ultrafeedback": _Size(4 * 63_967, 0, "completions, for their ratings alone; their number is assumed"),
}


@dataclass(frozen=True)
class Machine:
    """What there is: a device for embedding, and room.

    Attributes
    ----------
    device : str
    has_gpu : bool
    free_bytes : int
        In the folder of the results.
    """

    device: str
    has_gpu: bool
    free_bytes: int

    @classmethod
    def here(cls, folder: Path) -> Machine:
        """This machine, and the disk of a folder that may not exist yet."""
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        free = shutil.disk_usage(there).free
        if find_spec("torch") is not None:
            import torch

            if torch.cuda.is_available():
                return cls(torch.cuda.get_device_name(), True, free)
        return cls(f"no GPU, {os.cpu_count()} cores", False, free)


@dataclass(frozen=True)
class Cost:
    """One row: a set.

    Attributes
    ----------
    name : str
    texts : int or None
        None where the size is not known.
    vector_bytes, embed_hours, fit_minutes : float
    how : str
        What was counted.
    """

    name: str
    texts: int | None
    vector_bytes: float = 0.0
    embed_hours: float = 0.0
    fit_minutes: float = 0.0
    how: str = "size not known here: not counted"


def costs_of(plan: Plan, has_gpu: bool) -> list[Cost]:
    """The cost of every set that the tables of a plan need."""
    suite = plan.suite()
    width, rate = _encoder(plan, has_gpu)
    methods = {one["name"]: one for one in suite["methods"]}
    minutes: dict[str, float] = {}
    needed: dict[str, None] = {}
    for dataset in suite["datasets"]:
        teacher = dataset.get("taught_by", dataset["loader"])
        if isinstance(teacher, str):
            teacher = next((one["loader"] for one in suite["datasets"] if one["name"] == teacher), teacher)
        else:
            teacher = teacher["loader"]
        needed |= dict.fromkeys((dataset["loader"], teacher, *dataset.get("ratings", ())))
        rows = _SIZES[teacher].comparisons if teacher in _SIZES else 0
        heads = dataset.get("parameters", {}).get("n_components", _FIT_HEADS)
        seconds = sum(_fit_seconds(methods[name], heads) for name in dataset["methods"])
        scale = rows / _FIT_ROWS * width / _FIT_WIDTH * len(suite["seeds"])
        minutes[dataset["loader"]] = minutes.get(dataset["loader"], 0.0) + seconds * scale / 60
    found = []
    for name in needed:
        size = _SIZES.get(name)
        if size is None:
            found.append(Cost(name, None))
            continue
        bytes_of_vectors = 0.0 if rate is None else float(size.texts * width * _HALF)
        hours = 0.0 if rate is None else size.texts / rate / 3600
        found.append(Cost(name, size.texts, bytes_of_vectors, hours, minutes.get(name, 0.0), size.how))
    return found


def _fit_seconds(method: Mapping[str, Any], heads: int) -> float:
    kind = "micro_gated" if method.get("prompts") else method["kind"]
    seconds = FIT_SECONDS[_AS.get(kind, kind.replace("_", "-"))]
    own = kind in ("single", "oracle", "ensemble_best", "hyre", "hierarchical", "user_rewards")
    return seconds if own else seconds * method.get("n_components", heads) / _FIT_HEADS


def _encoder(plan: Plan, has_gpu: bool) -> tuple[int, float | None]:
    """Width of a vector, and texts a second; None where vectors are hashed and not kept."""
    if plan.encoder == "hashing":
        return 768, None
    _, _, texts, characters = RATES["gpu" if has_gpu else "cpu"]
    if not plan.has_reward_model:  # of the size of the model that was measured
        return _SENTENCE_WIDTH, texts * characters / ASSUMED
    return _WIDTH, texts * characters / ASSUMED * _MEASURED_PARAMETERS / _PARAMETERS


def as_blocks(plan: Plan, machine: Machine) -> list[Block]:
    """The table of costs, and whether the disk has room."""
    rows = costs_of(plan, machine.has_gpu)
    model = _PARAMETERS * _HALF if plan.has_reward_model else 0.0
    total = sum(one.vector_bytes for one in rows) + model
    cells = [
        [one.name, "" if one.texts is None else f"{one.texts:,}".replace(",", " "), *_figures(one), one.how]
        for one in rows
    ]
    sums = Cost("all", 0, total - model, sum(o.embed_hours for o in rows), sum(o.fit_minutes for o in rows), "")
    cells.append(["all", "", *_figures(sums), ""])
    device = "gpu" if machine.has_gpu else "cpu"
    file, _, texts, characters = RATES[device]
    # In proportion to parameters from a small model, which leaves most of a GPU idle.
    is_bound = machine.has_gpu and model > 0
    bound = ": an upper bound, since the small model leaves most of a GPU idle and a large one does not" * is_bound
    room = "enough" if machine.free_bytes > total else "not enough"
    return [
        Heading(1, "What the tables cost"),
        Paragraph(
            "Arithmetic, not a measurement: published sizes times rates of benchmarks/results. Embedding: "
            f"{texts:g} texts of {characters:g} characters a second ({file}, a model of 22 million parameters"
            f"{' on an H200' if machine.has_gpu else ' on two cores'}), in proportion to characters and "
            f"parameters{bound}. Assumed: "
            f"{ASSUMED:g} characters of a prompt with its response. Fitting: seconds of suite/results.csv, one thread, "
            "in proportion to rows, features and heads; fits that methods share are counted for each, so it takes less."
        ),
        Grid(
            [
                "set",
                "texts",
                "vectors, GB",
                f"embedding, hours ({'GPU' if machine.has_gpu else 'CPU'}{', at most' if is_bound else ''})",
                "fitting, minutes",
                "what is counted",
            ],
            [[one[0], *one[1:5], one[5]] for one in cells],
            1,
        ),
        Paragraph(
            f"This machine: {machine.device}; {machine.free_bytes / 1e9:.0f} GB free, {total / 1e9:.1f} GB needed"
            + (f" with {model / 1e9:.0f} GB for the model, data sets apart" if model else ", data sets apart")
            + f": {room}."
        ),
    ]


def _figures(cost: Cost) -> list[str]:
    if cost.texts is None:
        return ["", "", ""]
    return [f"{cost.vector_bytes / 1e9:.2f}", f"{cost.embed_hours:.1f}", f"{cost.fit_minutes:.0f}"]
