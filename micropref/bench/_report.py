"""The report of a suite: CSV files, and the tables of one page."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micropref.bench._document import Block, Heading, Image, Paragraph
from micropref.bench._grids import (
    against_best_rival,
    at_the_largest_budget,
    by_budget,
    glossary,
    losses,
    what_asking_gains,
    who_wins,
)
from micropref.bench._scores import DatasetResult, Pooled
from micropref.bench._specs import DatasetSpec, Suite
from micropref.bench._words import counted

COLUMNS = (
    *("dataset", "method", "kind", "family", "information", "budget", "mean_labels", "n_rows", "n_clusters", "reading"),
    *("status", "reason", "accuracy", "accuracy_low", "accuracy_high", "log_loss", "log_loss_low", "log_loss_high"),
    *("brier", "calibration_error", "group_accuracy", "gain", "gain_low", "gain_high", "gain_p"),
    *(
        "log_loss_gain",
        "log_loss_gain_low",
        "log_loss_gain_high",
        "log_loss_gain_p",
        "best_rival",
        "best_log_loss_rival",
    ),
    *("rival_difference", "rival_difference_low", "rival_difference_high", "rival_p", "rival_p_holm"),
    *("rival_log_loss_difference", "rival_log_loss_difference_low", "rival_log_loss_difference_high"),
    *("rival_log_loss_p", "rival_log_loss_p_holm", "warnings", "seeds", "data_hash", "split_hash", "code_hash"),
    *("micropref", "commit", "python", "numpy", "scipy", "scikit-learn", "hardware", "seconds"),
)
COMPARISON_COLUMNS = (
    *("dataset", "budget", "method", "rival", "information", "rival_information"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
    *("log_loss_difference", "log_loss_difference_low", "log_loss_difference_high", "log_loss_p", "log_loss_p_holm"),
)
WINNER_COLUMNS = (
    *("dataset", "metric", "budget", "own", "own_information", "own_value", "rival", "rival_information"),
    *("rival_value", "difference", "difference_low", "difference_high", "p"),
)
_READING = (
    "Methods are grouped by what they use beside the comparisons of training: annotators (who answered, in training), "
    "training contexts and contexts (of the comparisons in training and in test), label owners (whose label it is). "
    "By budget, ▲ is more accurate (or has the lower log-loss) and ▼ less than the best rival that uses no additional "
    "information: a paired bootstrap over whole respondents, or what the data set's paragraph names, seeds pooled; "
    "Holm over the methods of a column, 0.05. The best rival is chosen on the same test rows, which biases its "
    "accuracy upwards: ▼ is slightly anti-conservative, ▲ conservative. Where labels are drawn more than once for a "
    "seed, draws are resampled too; splits and fits are not. Controls and ceilings are not compared: random heads and "
    "heads of permuted annotators may gain from true labels, which select among them; only permuted labels leave "
    "nothing to gain. Log-loss is in nats, 0.693 is a coin. Intervals of all figures are in results.csv, all tests in "
    "comparisons.csv."
)
# What is resampled as a whole, and what has labels of its own, by the protocol.
_NAMES = {
    "contexts": ("unit", "context"),
    "users": ("user", "new user"),
    "known_users": ("user", "known user"),
}


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; a value that is not known stays empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in columns])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def document(
    suite: Suite, results: Sequence[DatasetResult], source: Mapping[str, str], figures: Mapping[str, Path]
) -> list[Block]:
    """All tables of a suite."""
    specs = {spec.name: spec for spec in suite.datasets}
    seconds = sum(one.seconds for result in results for one in result.methods)
    blocks: list[Block] = [
        Heading(1, f"Suite {suite.name}"),
        Paragraph(
            f"Seeds {' '.join(map(str, suite.seeds))}; budgets {', '.join(map(str, suite.budgets))} labels per context "
            f"or user if not said otherwise, {counted(suite.n_draws, 'draw')} of the labels for each seed; intervals "
            f"of {suite.level:.0%} from {counted(suite.n_resamples, 'resample')}. micropref {source['micropref']}"
            + (f", commit {source['commit']}" if source["commit"] else "")
            + f", Python {source['python']}, NumPy {source['numpy']}, SciPy {source['scipy']}, scikit-learn "
            f"{source['scikit-learn']}; {source['hardware']}. One thread for each cell, {seconds:.0f} s in all cells, "
            "which count the fits that methods share once for each of them."
        ),
        Paragraph(_READING),
        Heading(2, "Methods"),
        glossary(suite),
    ]
    for result in results:
        blocks += _dataset_blocks(suite, specs[result.name], result, figures.get(result.name))
    return blocks


def _dataset_blocks(suite: Suite, spec: DatasetSpec, result: DatasetResult, figure: Path | None) -> list[Block]:
    cluster, target = _NAMES[spec.protocol]
    labels = ", ".join(
        f"{budget}: {mean:.3g}"
        for budget, mean in zip(result.budgets, result.mean_labels, strict=True)
        if mean < budget
    )
    same = ", the same in each" if result.n_repeats > 1 else ""
    facts = [
        f"{result.reading}." if result.reading else "",
        f"{counted(len(result.weight), 'test row')} in {counted(result.n_clusters, cluster)} (resampled as a whole) "
        f"over {counted(len(result.seeds), 'seed')}{same}, {counted(result.n_targets, target)} for each; "
        f"{counted(result.n_train, 'training row')}.",
        f"{counted(spec.n_draws, 'draw')} of the labels for each seed, averaged{_fewer_draws(result)}."
        if spec.n_draws
        else "",
        _protocol(spec),
        "Settings of all methods that have them: " + ", ".join(f"{k} {v}" for k, v in spec.parameters.items()) + "."
        if spec.parameters
        else "",
        f"Labels available, where fewer than the budget (budget: mean): {labels}." if labels else "",
        "; ".join(result.notes) + "." if result.notes else "",
        f"Data {result.data_hash[:16]}, splits {result.split_hash[:16]} (SHA-256).",
    ]
    blocks: list[Block] = [Heading(2, result.name), Paragraph(" ".join(fact for fact in facts if fact))]
    if figure is not None:
        blocks.append(Image(figure, f"Accuracy and log-loss against labels on {result.name}"))
    blocks += who_wins(result) + what_asking_gains(result)
    blocks += by_budget(result, "accuracy", "Accuracy")
    blocks += by_budget(result, "log_loss", "Log-loss")
    blocks += against_best_rival(result)
    blocks += at_the_largest_budget(result)
    blocks += losses(result)
    # Seeds differ in the figures of a warning, and its advice is for the author of a model.
    warned = dict.fromkeys(
        f"{one.method.name}: {re.split(r' [(]|[.:] ', text.partition(': ')[2])[0]}"
        for one in result.methods
        for text in one.warnings
    )
    if warned:
        blocks.append(Paragraph("Warnings while fitting: " + "; ".join(warned) + "."))
    return blocks


def _fewer_draws(result: DatasetResult) -> str:
    few = [f"{one.method.name} {one.method.n_draws}" for one in result.methods if one.method.n_draws]
    return f" (of {', '.join(few)})" if few else ""


def _protocol(spec: DatasetSpec) -> str:
    if spec.protocol == "contexts":
        annotators = (
            "training rows of each context are assigned to synthetic annotators with "
            f"{counted(spec.pairs_per_annotator, 'row')} each"
            if spec.pairs_per_annotator
            else "annotators are those of the data"
        )
        return (
            f"Test: units ({spec.unit}) that are not in training; {annotators}; labels are training rows of a context."
        )
    if spec.protocol == "known_users":
        return (
            f"Test: units ({spec.unit}) that are not in training, of users with {counted(spec.min_votes, 'vote')} or "
            "more; all other rows are in training, with their users; labels are rows of the same users in training."
        )
    part = f"{spec.test_rows} random rows" if spec.test_rows else "units that are not in training,"
    other = "other rows" if spec.test_rows else "training units"
    limit = f" {spec.n_users} of those" if spec.n_users else " those"
    return (
        f"Test: {part} of new users (a share {spec.new_users:g} of{limit} with "
        f"{counted(spec.min_votes, 'vote')} or more), whose votes are all left out of training; labels are their votes "
        f"on {other}."
    )


def failures(results: Sequence[DatasetResult]) -> list[tuple[str, Pooled]]:
    """Methods that failed, with the name of their data set."""
    return [(result.name, one) for result in results for one in result.methods if one.status == "failed"]
