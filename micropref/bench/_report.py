"""The report of a suite: CSV files, and the tables of one page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micropref.bench._document import Block, Grid, Heading, Image, Paragraph
from micropref.bench._scores import DatasetResult, Pooled, in_words
from micropref.bench._specs import KINDS, DatasetSpec, Suite
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
_CAPTION = (
    "Intervals resample whole {clusters}, seeds pooled. ▲ more accurate, ▼ less accurate than the best rival that uses "
    "no additional information (paired bootstrap, Holm over the methods of a column, 0.05). The best rival is chosen "
    "on the same test rows, which biases its accuracy upwards: ▼ is slightly anti-conservative, ▲ conservative. Where "
    "labels are drawn more than once for a seed, draws are resampled too; splits and fits are not. Controls and the "
    "ceiling are not compared: random heads and heads of permuted annotators may gain from true labels, which select "
    "among them; only permuted labels leave nothing to gain."
)
_SIGNIFICANT = 0.05
# What is resampled as a whole, and what has labels of its own, by the protocol.
_NAMES = {
    "contexts": ("unit", "context"),
    "users": ("user", "new user"),
    "known_users": ("user", "known user"),
}
# Differences in accuracy or in nats below this are too small to matter.
_SMALLEST = 0.001
# Metrics that are compared, and the prefix of their columns.
_METRICS = {"accuracy": "", "log-loss": "log_loss_"}


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
    facts = [
        f"{result.reading}." if result.reading else "",
        f"{counted(len(result.weight), 'test row')} in {counted(result.n_clusters, cluster)} over "
        f"{counted(len(result.seeds), 'seed')}, {counted(result.n_targets, target)} for each; "
        f"{counted(result.n_train, 'training row')}.",
        f"{counted(spec.n_draws, 'draw')} of the labels for each seed, averaged{_fewer_draws(result)}."
        if spec.n_draws
        else "",
        _protocol(spec),
        f"Labels available, where fewer than the budget (budget: mean): {labels}." if labels else "",
        "; ".join(result.notes) + "." if result.notes else "",
        f"Data {result.data_hash[:16]}, splits {result.split_hash[:16]} (SHA-256).",
    ]
    blocks: list[Block] = [Heading(2, result.name), Paragraph(" ".join(fact for fact in facts if fact))]
    if figure is not None:
        blocks.append(Image(figure, f"Accuracy and log-loss against labels on {result.name}"))
    caption = _CAPTION.format(clusters=f"{cluster}s")
    blocks += [
        *_best(result),
        Heading(3, "Accuracy"),
        _by_budget(result, "accuracy", f"Accuracy. {caption}"),
        Heading(3, "Log-loss"),
        _by_budget(
            result, "log_loss", "Log-loss in nats, less is better; 0.693 is a coin. ▲ better, ▼ worse, as above."
        ),
        Heading(3, "At the largest budget"),
        _largest(result),
    ]
    blocks += _against_rivals(result)
    warned = [f"{one.method.name}: {text}" for one in result.methods for text in one.warnings]
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
    limit = f" {spec.n_users} of the" if spec.n_users else " those"
    return (
        f"Test: {part} of new users (a share {spec.new_users:g} of{limit} with "
        f"{counted(spec.min_votes, 'vote')} or more), whose votes are all left out of training; labels are their votes "
        f"on {other}."
    )


def _by_budget(result: DatasetResult, name: str, caption: str) -> Grid:
    cells = {(row["method"], row["budget"]): row for row in result.rows}
    rows = []
    for one in result.methods:
        first = [one.method.name, in_words(one.information)]
        found = [cells[one.method.name, budget] for budget in result.budgets]
        if one.odds is None:
            rows.append([*first, f"{one.status}: {one.reason}", *[""] * (len(found) - 1)])
        else:
            rows.append([*first, *(_interval(row, name) + _mark(row, name) for row in found)])
    return Grid(["method", "information", *map(str, result.budgets)], rows, 2, caption)


def _interval(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    if row.get(name) is None:
        return ""
    text = f"{row[name]:{sign}.3f}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} ({low:{sign}.3f} to {high:{sign}.3f})"


def _mark(row: Mapping[str, Any], name: str) -> str:
    prefix = {"accuracy": "", "log_loss": "log_loss_"}[name]
    p = row.get(f"rival_{prefix}p_holm")
    if p is None or p > _SIGNIFICANT or not row[f"rival_{prefix}difference"]:
        return ""
    return " ▲" if row[f"rival_{prefix}difference"] > 0 else " ▼"


def _largest(result: DatasetResult) -> Grid:
    cells = {(row["method"], row["budget"]): row for row in result.rows}
    rows = []
    for one in result.methods:
        row = cells[one.method.name, result.budgets[-1]]
        first = [one.method.name, KINDS[one.method.kind].label, one.family]
        if one.odds is None:
            rows.append([*first, f"{one.status}: {one.reason}", *[""] * 8])
            continue
        adjusted = row.get("rival_p_holm")
        rows.append(
            [
                *first,
                _interval(row, "gain", "+"),
                "" if row.get("gain_p") is None else f"{row['gain_p']:.3g}",
                row.get("best_rival", ""),
                _interval(row, "rival_difference", "+"),
                "" if adjusted is None else f"{adjusted:.3g}",
                f"{row['brier']:.3f}",
                f"{row['calibration_error']:.3f}",
                f"{row['group_accuracy']:.3f}",
                f"{one.seconds:.1f}",
            ]
        )
    header = [
        *("method", "what it is", "family", "gain over one reward", "p", "best rival", "difference"),
        *("p (Holm)", "Brier", "calibration error", "group average", "seconds"),
    ]
    caption = (
        f"{counted(result.budgets[-1], 'label')}. Gains and differences are of accuracy, paired row by row. Best "
        "rival: of those that use no additional information. Group average: each context or user has the same weight."
    )
    return Grid(header, rows, 3, caption)


def _best(result: DatasetResult) -> list[Block]:
    """The best method at every budget, and how far the best of micropref's own is behind it."""
    if not result.winners:
        return []
    rows = []
    for metric in _METRICS:
        of = [row for row in result.winners if row["metric"] == metric]
        rows.append([metric, "best of all", *(f"{row['best']} {row['best_value']:.3f}" for row in of)])
        rows.append([metric, "best of micropref", *map(_behind, of)])
    about = (
        "Whatever the methods know, controls and ceilings apart. In brackets the paired difference to the best of all; "
        "▼ where it is significant at 0.05, not adjusted: then another method wins. Both are chosen on the test rows."
    )
    return [
        Heading(3, "Who wins"),
        Grid(["metric", "labels:", *map(str, result.budgets)], rows, 2, about),
    ]


def _behind(row: Mapping[str, Any]) -> str:
    if row["own"] is None:
        return "none"
    text = f"{row['own']} {row['own_value']:.3f}"
    if row["own"] == row["best"]:
        return text
    text += f" ({row['difference']:+.3f})"
    return f"{text} ▼" if row["p"] is not None and row["p"] <= _SIGNIFICANT else text


def _against_rivals(result: DatasetResult) -> list[Block]:
    """Where MiCRo is significantly worse than a rival without additional information: the worst at each budget."""
    if not result.comparisons:
        return []
    worst: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for name, prefix in _METRICS.items():
        for test in result.comparisons:
            adjusted, difference = test[f"{prefix}p_holm"], test[f"{prefix}difference"]
            if adjusted is None or adjusted > _SIGNIFICANT or difference > -_SMALLEST:
                continue
            at = worst.setdefault((test["method"], name), {})
            if test["budget"] not in at or difference < at[test["budget"]][f"{prefix}difference"]:
                at[test["budget"]] = test
    heading = Heading(3, "Where MiCRo loses")
    n = len(result.comparisons)
    about = (
        f"Paired with every rival that uses no additional information, {counted(n, 'test')} in all; Holm over the "
        "rivals of a method at a budget, and not over methods and budgets, so that a few of those listed may be "
        f"chance. The worst loss at each budget is shown; those below {_SMALLEST} are left out. All tests are in "
        "comparisons.csv."
    )
    if not worst:
        return [heading, Paragraph(f"No significant loss. {about}")]
    rows = []
    for (method, name), tests in worst.items():
        prefix = _METRICS[name]
        losses = "; ".join(
            f"{budget}: {_interval(test, f'{prefix}difference', '+')} to {test['rival']}"
            for budget, test in sorted(tests.items())
        )
        rows.append([method, name, losses])
    return [heading, Grid(["method", "metric", "labels: difference to the rival"], rows, 3, about)]


def failures(results: Sequence[DatasetResult]) -> list[tuple[str, Pooled]]:
    """Methods that failed, with the name of their data set."""
    return [(result.name, one) for result in results for one in result.methods if one.status == "failed"]
