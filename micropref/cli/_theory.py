"""`micropref theory`: the terms of one reward's error and its lower bounds, of a planted world or of given data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from micropref._support.text import counted
from micropref.cli._app import (
    Encoder,
    Json,
    Store,
    app,
    out,
    print_json,
    print_table,
    working,
)
from micropref.cli._data import (
    Annotators,
    Column,
    Encoding,
    Format,
    Label,
    Reading,
    Rejected,
    SkipBad,
    read_table,
    refuse_input_as_output,
)

_TERMS = {
    "label_noise": ("label noise", "each group's own noise; nothing removes it"),
    "group_information": ("hidden group", "a context or a user's history removes it"),
    "misspecification": ("misspecification", "a mixture removes it"),
    "cross_entropy": ("error of one reward", "the sum"),
}
_BOUNDS = {
    "information": ("information", "I(Y; Z | X, A, B)"),
    "pairwise": ("pairwise", "2 E Var(σ)"),
    "averaged": ("averaged", "2 E Var(E σ), pairs of a prompt averaged"),
    "theorem_3_2": ("Theorem 3.2", "2 ρ K E Var(E σ)"),
}


@app.command()
def theory(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL", help="Folder of a model; without it: a planted world.")
    ] = None,
    data: Annotated[
        str | None, typer.Argument(metavar="DATA]", help="The comparisons that the model was fitted to.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", help="Planted world: vary diversity, n_groups, pairs_per_group or informativeness."),
    ] = None,
    groups: Annotated[int, typer.Option("--groups", "-k", min=1, help="Planted world: number of groups.")] = 2,
    diversity: Annotated[
        float | None,
        typer.Option("--diversity", help="Planted world: smallest weight; default: all equal."),
    ] = None,
    test: Annotated[
        bool,
        typer.Option("--test", help="With a model and data: also test whether one reward is enough (four more fits)."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the world or of the bootstrap.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Image file for the figure of the terms.")
    ] = None,
    encoder: Encoder = None,
    store: Store = None,
    column: Column = None,
    label: Label = None,
    format: Format = None,
    annotators: Annotators = None,
    encoding: Encoding = None,
    skip_bad: SkipBad = False,
    rejected: Rejected = None,
    as_json: Json = False,
) -> None:
    """Decompose the error of one reward: label noise, hidden groups, and misspecification.

    Without arguments, prints the exact terms of a planted world. With a model and the comparisons to which it was
    fitted, prints estimates with 95 % intervals that resample annotators. All figures are in nats per comparison.
    """
    if (model is None) != (data is None):
        raise typer.BadParameter(
            "expected MODEL and DATA, or neither for a planted world, got MODEL alone", param_hint="DATA"
        )
    if model is None or data is None:
        _planted(sweep, groups, diversity, seed, output, as_json)
        return
    for name, given in (("--sweep", sweep), ("--diversity", diversity)):
        if given is not None:
            raise typer.BadParameter(
                f"expected only for a planted world, got {given!r} with a model and its data", param_hint=name
            )
    from micropref.reward import PreferenceModel
    from micropref.theory import estimate_irreducible_error, identifiability_report, single_reward_test
    from micropref.theory._bounds import bounds_of_fit

    with working() as report:
        refuse_input_as_output(data, output, "--output")
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder, store=store)
        table = read_table(data, Reading(column, label, format, annotators, encoding, skip_bad, rejected), report)
        report(f"embedding {counted(len(table), 'comparison')}")
        X, users, weight = fitted.stage_one_rows(table)
        mixture = fitted.mixture
        design = None
        if users is not None:
            design = identifiability_report(X, users, n_context_features=mixture.n_context_features)
        report("resampling annotators")
        estimate = estimate_irreducible_error(mixture, X, None, users, weight, random_state=seed)
        verdict = None
        if test:
            report("fitting one reward and several on halves of the annotators")
            verdict = single_reward_test(mixture, X, None, users, weight, random_state=seed)
        bounds = bounds_of_fit(mixture, X)
    if output is not None:
        _draw(output, [estimate], ["these data"])
    if as_json:
        found: dict[str, Any] = {"model": str(model), **asdict(estimate), "advice": estimate.advice}
        found |= {"bounds_of_fit": {name: value for name, value in asdict(bounds).items() if value is not None}}
        found |= {} if design is None else {"identifiability": asdict(design) | {"explanation": design.explanation}}
        print_json(found | ({} if verdict is None else {"single_reward_test": asdict(verdict)}))
        return
    _print_estimate(estimate, bounds, design, verdict)
    if output is not None:
        out.print(f"Figure: {output}")


def _print_estimate(estimate: Any, bounds: Any, design: Any, verdict: Any) -> None:
    """The table of the terms, and a line for each of the other results that there are."""
    units = f"{counted(estimate.n_groups, 'annotator')} or single rows"
    shown = Table(title=f"{counted(estimate.n_rows, 'comparison')}, {units}")
    for name in ("", "nats", "95 % interval", "what it is"):
        shown.add_column(name, justify="right" if name in ("nats", "95 % interval") else "left", no_wrap=True)
    for name, (label, meaning) in _TERMS.items():
        low, high = getattr(estimate, f"{name}_interval")
        shown.add_row(label, f"{getattr(estimate, name):.4f}", f"{low:.4f} – {high:.4f}", meaning)
    print_table(shown)
    out.print(
        f"Bounds of the fitted heads, not corrected for noise: information {bounds.information:.4f}, "
        f"pairwise {bounds.pairwise:.4f}."
    )
    out.print(estimate.advice)
    if design is not None:
        out.print(design.explanation)
    if verdict is not None:
        says = "one reward is not enough" if verdict.p_value <= 0.05 else "one reward is not rejected"
        if verdict.p_value > 0.05 and not verdict.has_power:
            says = f"inconclusive, since only a gain of {verdict.needed_gain:.2g} nats can be detected"
        out.print(f"Test of one reward: p = {verdict.p_value:.3g}, held-out gain {verdict.gain:.4f} nats: {says}.")


def _planted(
    sweep: str | None, groups: int, diversity: float | None, seed: int, output: Path | None, as_json: bool
) -> None:
    from micropref.theory import sweep_error

    if sweep is not None:
        found = sweep_error(sweep, n_components=groups, random_state=seed)
    else:
        smallest = 1 / groups if diversity is None else diversity
        found = sweep_error("diversity", [smallest], n_components=groups, random_state=seed)
    labels = [f"{value:g}" for value in found.values]
    if output is not None:
        _draw(output, found, labels)
    rows = []
    for i, value in enumerate(found.values):
        bounds = {} if found.bounds is None else asdict(found.bounds[i])
        rows.append({found.parameter: float(value), **asdict(found.terms[i]), **bounds})
    if as_json:
        print_json({"parameter": found.parameter, "seed": seed, "rows": [_with_old_key(row) for row in rows]})
        return
    if sweep is None:
        shown = Table(
            title=f"A planted world: {counted(groups, 'group')}, the smallest of weight {found.values[0]:.3g}"
        )
        for name in ("", "nats", "what it is"):
            shown.add_column(name, justify="right" if name == "nats" else "left", no_wrap=True)
        for names in (_TERMS, _BOUNDS):
            for name, (label, meaning) in names.items():
                shown.add_row(label, f"{rows[0][name]:.4f}", meaning)
            if names is _TERMS:
                shown.add_section()
    else:
        # A column for each value, so that a row reads along the sweep and 80 columns are enough.
        title = f"Planted worlds, nats per comparison, along {sweep}"
        shown = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in (sweep, *labels):
            shown.add_column(name, justify="left" if name == sweep else "right", no_wrap=True)
        for names in (_TERMS, *(() if found.bounds is None else (_BOUNDS,))):
            for name, (term, _) in names.items():
                # For pairs of an annotator, the error is that of a mixture, not of one reward.
                shown.add_row("error" if name == "cross_entropy" else term, *(f"{row[name]:.4f}" for row in rows))
            shown.add_section()
    print_table(shown)
    if output is not None:
        out.print(f"Figure: {output}")


def _with_old_key(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the bound of Theorem 3.2 under its name of 0.1 as well, which 0.3 removes."""
    return row | ({"printed": row["theorem_3_2"]} if "theorem_3_2" in row else {})


def _draw(path: Path, found: Any, labels: list[str]) -> None:
    from micropref._support.optional import require
    from micropref.plotting import ErrorDecompositionDisplay
    from micropref.theory import ErrorSweep

    figure = require("matplotlib.figure", "drawing the terms").Figure(figsize=(10.0, 4.0), layout="constrained")
    axes, small = figure.subplots(1, 2)
    if isinstance(found, ErrorSweep):
        display = ErrorDecompositionDisplay.from_sweep(found, ax=axes)
    else:
        display = ErrorDecompositionDisplay(found, labels).plot(axes)
    display.plot_zoomed(small)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
