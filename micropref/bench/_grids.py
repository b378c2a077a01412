"""The tables of a report: who wins, every method at every budget, paired differences, losses; each at most 80 wide."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from micropref.bench._document import Block, Grid, Heading, Paragraph
from micropref.bench._scores import DatasetResult, Pooled, in_words
from micropref.bench._specs import KINDS, MethodSpec, Suite
from micropref.bench._words import counted

_SIGNIFICANT = 0.05
# Differences in accuracy or in nats below this are too small to matter.
_SMALLEST = 0.001
# Metrics that are compared, and the prefix of their columns.
_METRICS = {"accuracy": "", "log-loss": "log_loss_"}
_FAMILIES = {"micro": "micropref", "rival": "rivals", "control": "controls", "ceiling": "ceilings"}


def figure(value: float | None, sign: str = "") -> str:
    """Three decimals without the zero before the point, two from 1 on; empty for None."""
    if value is None:
        return ""
    decimals = 3 if abs(value) < 0.9995 else 2
    return re.sub(r"(?<!\d)0\.", ".", f"{value:{sign}.{decimals}f}")


def interval(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    """A figure of a row, with its interval if there is one."""
    text, low, high = figure(row.get(name), sign), row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} ({figure(low)} to {figure(high)})"


def group_name(one: Pooled) -> str:
    """The heading under which a method stands."""
    return in_words(one.information) if one.family in ("micro", "rival") else _FAMILIES[one.family]


def glossary(suite: Suite) -> Grid:
    """What every method is, by family."""
    rows = []
    for family, name in _FAMILIES.items():
        of = [method for method in suite.methods if KINDS[method.kind].family == family]
        rows += [[name]] if of else []
        rows += [[method.name, _what_it_is(method)] for method in of]
    return Grid(["method", "what it is"], rows, 2)


def _what_it_is(method: MethodSpec) -> str:
    label, named = (
        KINDS[method.kind].label,
        {
            "history": "and history",
            "training_contexts": "gate learned with the heads",
            "prompts": "gate of prompts learned with the heads",
        },
    )
    if method.settings.get("permute") == "labels":
        label = label.replace("annotators", "label owners")
    more = [named.get(key, f"{key} {value}") for key, value in method.settings.items() if key != "permute"]
    return "; ".join([label, *more])


def who_wins(result: DatasetResult) -> list[Block]:
    """The best of micropref's own methods beside the best rival at every budget, and their paired difference."""
    if not result.winners:
        return []
    rows: list[list[str]] = []
    for metric in _METRICS:
        rows.append([metric])
        rows += [_winner(row) for row in result.winners if row["metric"] == metric]
    about = (
        "The best methods whatever they use, controls and ceilings apart, and the paired difference with its interval: "
        "above 0, micropref's is better; ▲ or ▼ where p ≤ 0.05, not adjusted. Under ▼ a rival wins. Both are chosen on "
        "the test rows."
    )
    return [
        Heading(3, "Who wins"),
        Grid(["labels", "best of micropref", "best rival", "difference"], rows, 3, about),
    ]


def _winner(row: Mapping[str, Any]) -> list[str]:
    best = [f"{row[name]} {figure(row[f'{name}_value'])}" for name in ("own", "rival")]
    return [str(row["budget"]), *best, interval(row, "difference", "+") + _mark(row["difference"], row["p"])]


def what_asking_gains(result: DatasetResult) -> list[Block]:
    """What a method gains by asking for its labels instead of taking those that are drawn, at equal numbers."""
    if not result.asked:
        return []
    rows: list[list[str]] = []
    for pair in dict.fromkeys((row["method"], row["rival"]) for row in result.asked):
        rows.append([f"{pair[0]} against {pair[1]}"])
        rows += [
            [
                str(row["budget"]),
                *(
                    interval(row, f"{prefix}difference", "+") + _mark(row[f"{prefix}difference"], row[f"{prefix}p"])
                    for prefix in _METRICS.values()
                ),
            ]
            for row in result.asked
            if (row["method"], row["rival"]) == pair and row["budget"]
        ]
    about = (
        "Labels that the method asks for against labels that are drawn, and one rule of asking against another, "
        "paired: above 0, the first is better; ▲ or ▼ where p ≤ 0.05, not adjusted."
    )
    return [Heading(3, "What asking gains"), Grid(["labels", "accuracy", "log-loss, nats"], rows, 1, about)]


def _mark(difference: float, p: float | None) -> str:
    if p is None or p > _SIGNIFICANT or not difference:
        return ""
    return "▲" if difference > 0 else "▼"


def by_budget(result: DatasetResult, name: str, title: str) -> list[Block]:
    """A metric of every method at every budget, methods grouped by what they use."""
    cells = _cells(result)
    prefix = {"accuracy": "", "log_loss": "log_loss_"}[name]

    def line(one: Pooled) -> list[str]:
        found = [one.method.name]
        for budget in result.budgets:
            row = cells[one.method.name, budget]
            difference, p = (row.get(f"rival_{prefix}{end}") for end in ("difference", "p_holm"))
            found.append(figure(row[name]) + ("" if difference is None else _mark(difference, p)))
        return found

    blocks: list[Block] = [Heading(3, title)]
    rows = _grouped(result, line)
    if rows:
        blocks.append(Grid(["method", *map(str, result.budgets)], rows, 1))
    return [*blocks, *_without_figures(result)]


def _without_figures(result: DatasetResult) -> list[Block]:
    """Methods that failed or are not applicable, those of one reason together."""
    why: dict[str, list[str]] = {}
    for one in result.methods:
        if one.odds is None:
            why.setdefault(f"{one.status}: {one.reason}", []).append(one.method.name)
    return (
        [Paragraph(". ".join(f"{reason} ({', '.join(names)})" for reason, names in why.items()) + ".")] if why else []
    )


def _grouped(
    result: DatasetResult, line: Callable[[Pooled], list[str]], families: Sequence[str] = ()
) -> list[list[str]]:
    """A line for every method that has figures, each group under its heading, controls and ceilings last."""
    groups: dict[str, list[Pooled]] = {}
    order = list(_FAMILIES)
    for one in sorted(result.methods, key=lambda one: (max(1, order.index(one.family)), len(one.information))):
        if one.odds is not None and (not families or one.family in families):
            groups.setdefault(group_name(one), []).append(one)
    rows = []
    for name, of in groups.items():
        rows += [[name], *map(line, of)]
    return rows


def against_best_rival(result: DatasetResult) -> list[Block]:
    """The paired difference of every method to the best rival that uses no more, at the largest budget."""
    budget, cells, rows = result.budgets[-1], _cells(result), []
    for metric, prefix in _METRICS.items():
        of = []
        for one in result.methods:
            row = cells[one.method.name, budget]
            rival, adjusted = row.get(f"best_{prefix}rival"), row.get(f"rival_{prefix}p_holm")
            if rival:
                p = "" if adjusted is None else _p_value(adjusted)
                of.append([one.method.name, rival, interval(row, f"rival_{prefix}difference", "+"), p])
        rows += [[metric], *of] if of else []
    if not rows:
        return []
    about = f"{counted(budget, 'label')}; above 0 the method is better. p is Holm's over the methods of a metric."
    return [
        Heading(3, "Against the best rival without additional information"),
        Grid(["method", "best rival", "difference", "p"], rows, 2, about),
    ]


def _p_value(p: float) -> str:
    return "<.001" if p < 0.001 else figure(p)


def at_the_largest_budget(result: DatasetResult) -> list[Block]:
    """Intervals, calibration and time of every method at the largest budget."""
    cells = _cells(result)

    def intervals(one: Pooled) -> list[str]:
        row = cells[one.method.name, result.budgets[-1]]
        return [one.method.name, interval(row, "accuracy"), interval(row, "log_loss"), figure(row["brier"])]

    def others(one: Pooled) -> list[str]:
        row = cells[one.method.name, result.budgets[-1]]
        numbers = [figure(row[name]) for name in ("calibration_error", "group_accuracy")]
        return [one.method.name, interval(row, "gain", "+"), *numbers, f"{one.seconds:.1f}"]

    rows = [_grouped(result, line) for line in (intervals, others)]
    if not rows[0]:
        return []
    labels = counted(result.budgets[-1], "label")
    about = (
        f"{labels}. Gain: of accuracy over one reward, paired. ECE: expected calibration error. By group: accuracy "
        "where each context or user has the same weight. s: seconds of all seeds."
    )
    return [
        Heading(3, "At the largest budget"),
        Grid(["method", "accuracy", "log-loss", "Brier"], rows[0], 1, f"{labels}, with intervals."),
        Grid(["method", "gain", "ECE", "by group", "s"], rows[1], 1, about),
    ]


def losses(result: DatasetResult) -> list[Block]:
    """Where micropref is significantly worse than a rival without additional information: the worst at each budget."""
    if not result.comparisons:
        return []
    worst: dict[str, dict[tuple[str, int], dict[str, Any]]] = {metric: {} for metric in _METRICS}
    for metric, prefix in _METRICS.items():
        for test in result.comparisons:
            adjusted, difference = test[f"{prefix}p_holm"], test[f"{prefix}difference"]
            if adjusted is None or adjusted > _SIGNIFICANT or difference > -_SMALLEST:
                continue
            at = (test["method"], test["budget"])
            if at not in worst[metric] or difference < worst[metric][at][f"{prefix}difference"]:
                worst[metric][at] = test
    heading = Heading(3, "Where micropref loses")
    about = (
        f"Paired with every rival that uses no additional information, {counted(len(result.comparisons), 'test')} in "
        "all; Holm over the rivals of a method at a budget, and not over methods and budgets, so that a few of those "
        f"listed may be chance. The worst loss at each budget is shown; those below {_SMALLEST} are left out."
    )
    if not any(worst.values()):
        return [heading, Paragraph(f"No significant loss. {about}")]
    rows = []
    for metric, tests in worst.items():
        rows += [[metric]] if tests else []
        order = list(dict.fromkeys(method for method, _ in tests))
        for (method, budget), test in sorted(tests.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
            difference = interval(test, f"{_METRICS[metric]}difference", "+")
            rows.append([method, str(budget), test["rival"], difference])
    return [heading, Grid(["method", "labels", "rival", "difference"], rows, 3, about)]


def _cells(result: DatasetResult) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(row["method"], row["budget"]): row for row in result.rows}
