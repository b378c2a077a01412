"""The prior deviations s behind ``alpha="auto"``, beside other ones: held-out log-loss on training rows of the suite.

    python benchmarks/bench_defaults.py --data FOLDER [--output benchmarks/results/defaults.csv]

FOLDER is that of ``micropref bench benchmarks/suite.toml``. No test row of the suite is looked at: of the training
rows of each data set and seed, two thirds of the annotators teach and the rest are asked, whole; for one head, two
thirds of the pairs. Heads: mean loss in nats per row of the annotators who are asked, their rows judged together. Gate:
of a router over these heads, with a few labels for each context from annotators who are asked, on their other rows; and
of a mixture whose gate reads the context.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from micropref import ContextRouter, MixtureBradleyTerry
from micropref._engine.priors import GATE_DEVIATION, HEAD_DEVIATION
from micropref.bench import DatasetSpec, load_suite
from micropref.bench._loading import load_data
from micropref.bench._provenance import provenance
from micropref.bench._tasks import BenchRows, MethodInputs, make_task

HEADS = (0.7, 1.0, 1.4, HEAD_DEVIATION, 2.1, 2.8, 4.0, None)
GATES = (1.4, 2.8, 4.0, GATE_DEVIATION, 8.0, 11.0, 22.0, None)
FIXED = 1e-3  # the penalty of version 0.1, in place of None

Losses = Callable[[float | None], float]


def penalty(features: np.ndarray, s: float | None) -> float:
    """The penalty that stands for the prior deviation s on these rows of weight 1."""
    return FIXED if s is None else float(np.square(features.astype(np.float64)).sum() / len(features) ** 2 / s**2)


def asked_and_teachers(inputs: MethodInputs, random: np.random.Generator, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows of a third of the annotators, or of a third of the pairs for one head, and the others."""
    if k > 1 and inputs.has_annotators:
        unit = inputs.annotators
    else:
        unit = np.unique(np.abs(inputs.train.difference), axis=0, return_inverse=True)[1].ravel()
    names = random.permutation(np.unique(unit))
    asked = np.isin(unit, names[: len(names) // 3])
    return np.flatnonzero(asked), np.flatnonzero(~asked)


def head_losses(inputs: MethodInputs, k: int, seed: int) -> Losses:
    asked, teachers = asked_and_teachers(inputs, np.random.default_rng(seed), k)
    train, test = inputs.train.select(teachers), inputs.train.select(asked)
    # One head has nothing to learn from who answered.
    groups = [inputs.annotators[rows] if k > 1 else None for rows in (teachers, asked)]

    def loss(s: float | None) -> float:
        model = MixtureBradleyTerry(k, alpha=penalty(train.difference, s), random_state=seed)
        model.fit(train.difference, train.y, groups=groups[0])
        return -model.log_likelihood(test.difference, test.y, groups=groups[1])

    return loss


def router_losses(inputs: MethodInputs, k: int, seed: int, labels: int) -> Losses:
    asked, teachers = asked_and_teachers(inputs, np.random.default_rng(seed), k)
    train, rows = inputs.train.select(teachers), inputs.train.select(asked)
    heads = MixtureBradleyTerry(k, random_state=seed)
    heads.fit(train.difference, train.y, groups=inputs.annotators[teachers])
    drawn = inputs.ranks[:, asked].argsort(axis=1)

    def loss(s: float | None) -> float:
        found = []
        for order in drawn:
            target = inputs.pool_target[asked][order]
            first = np.concatenate([np.flatnonzero(target == one)[:labels] for one in np.unique(target)])
            labelled = order[first]
            rest, few = rows.select(np.setdiff1d(order, labelled)), rows.select(labelled)
            router = ContextRouter(heads, alpha=penalty(few.context, s), random_state=seed).fit(few.pairs(), few.y)
            found.append(log_loss(router.predict_proba(rest.pairs()), rest))
        return float(np.mean(found))

    return loss


def gated_losses(inputs: MethodInputs, k: int, seed: int) -> Losses:
    asked, teachers = asked_and_teachers(inputs, np.random.default_rng(seed), k)
    train, test = inputs.train.select(teachers), inputs.train.select(asked)
    width = train.context.shape[1]

    def loss(s: float | None) -> float:
        model = MixtureBradleyTerry(
            k, n_context_features=width, gate_alpha=penalty(train.context, s), random_state=seed
        ).fit(train.pairs(), train.y)
        return log_loss(model.predict_proba(test.pairs()), test)

    return loss


def log_loss(probabilities: np.ndarray, rows: BenchRows) -> float:
    return float(-np.log(probabilities[np.arange(len(rows)), rows.y]).mean())


def questions(specs: dict[str, DatasetSpec]) -> Iterator[tuple[str, str, DatasetSpec, Callable[..., Losses]]]:
    """Which prior, what is asked, the data set, and how its losses are found."""
    for name, k in (("dsp", 4), ("sushi2500", 6), ("ukpconvarg1", 1), ("world-discrete", 3), ("world-continuous", 1)):
        spec = specs[name]
        yield "head", f"{name}, {k} heads", spec, lambda inputs, seed, k=k: head_losses(inputs, k, seed)
        if name == "dsp":
            ten = replace(spec, pairs_per_annotator=10)
            yield "head", "dsp, 10 pairs per annotator, 4 heads", ten, lambda i, seed: head_losses(i, 4, seed)
    small = replace(specs["world-continuous"], n_samples=1400)
    yield "head", "world-continuous, 1 head, few rows", small, lambda inputs, seed: head_losses(inputs, 1, seed)
    for labels in (2, 5, 20):
        yield (
            "gate",
            f"dsp, router, {labels} labels per context",
            specs["dsp"],
            lambda inputs, seed, labels=labels: router_losses(inputs, 4, seed, labels),
        )
    for n in (450, 3000):
        spec = replace(specs["world-contexts"], n_samples=n)
        yield "gate", f"world-contexts, gated mixture, {n} rows", spec, lambda i, seed: gated_losses(i, 3, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="CSV to write")
    options = parser.parse_args()
    # A head that dies at a poor penalty is part of the answer.
    warnings.filterwarnings("ignore", message=".*of less than 2 %")
    suite = load_suite(Path(__file__).parent / "suite.toml")
    found = []
    for prior, question, spec, ask in questions({one.name: one for one in suite.datasets}):
        data, losses, n = load_data(spec, options.data), [], []
        for seed in range(options.seeds):
            inputs = make_task(data, spec, seed=seed, budgets=(0,), n_draws=3).inputs
            loss = ask(inputs, seed)
            losses.append([loss(s) for s in (HEADS if prior == "head" else GATES)])
            n.append(len(inputs.train) * 2 // 3)
        row = {"prior": prior, "question": question, "teaching_rows": round(np.mean(n)), "seeds": options.seeds}
        names = ["alpha 1e-3" if s is None else f"s {s:g}" for s in (HEADS if prior == "head" else GATES)]
        found.append((row, dict(zip(names, np.mean(losses, axis=0).round(4).tolist(), strict=True))))
        print(" | ".join([question, str(row["teaching_rows"]), *(f"{k}: {v:.4f}" for k, v in found[-1][1].items())]))
    if options.output:
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            origin = provenance()
            writer.writerow(["prior", "question", "teaching_rows", "seeds", "penalty", "log_loss", *origin])
            for row, losses_by_name in found:
                for name, value in losses_by_name.items():
                    writer.writerow([*row.values(), name, value, *origin.values()])


if __name__ == "__main__":
    main()
