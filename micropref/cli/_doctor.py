"""`micropref doctor`: whether this installation is complete, and computes what it should."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from micropref._support.text import counted
from micropref.cli._app import Json, app, err, out, print_json, print_table, working

if TYPE_CHECKING:
    from micropref._installation import Check, Devices, Findings


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this installation: versions, devices, and every compute path against double precision.

    A small example is computed on each path that can run here, and compared with the same equations in NumPy's double
    precision. The exit code is 1 if a path fails, or if a package is older than micropref accepts. Needs no network.
    """
    from micropref._installation import examine

    with working(silent=as_json) as step:
        found = examine(step)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)
    if found.problems:
        for problem in found.problems:
            err.print(f"micropref: error: {problem}")
        raise typer.Exit(1)


def _show(found: Findings) -> None:
    out.print(f"micropref {found.micropref}, Python {found.python}, {found.system}")
    _section("Packages", _packages(found))
    _section("Machine", [*_machine(found.devices), ("variables", _variables(found.environment))])
    _section(
        "Which path computes what",
        [(one.path, f"{one.rows}{': its check FAILED' if found.fails(one) else ''}") for one in found.choices],
    )
    out.print("\nChecks against double precision", style="bold")
    print_table(_checks(found.checks))
    for line in found.advice:
        out.print(f"\nadvice: {line}")
    if not found.problems:
        passed = f"{counted(len(found.checks), 'check')} passed."
        out.print(f"\n{passed}" if found.advice else f"\nAll is well: {passed}", style="green")


def _section(title: str, lines: list[tuple[str, str | None]]) -> None:
    """A title, and below it names with what is said of them; what has nothing to say is left out."""
    shown = Table.grid(padding=(0, 2), pad_edge=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in lines:
        if value:
            shown.add_row(name, value)
    out.print(f"\n{title}", style="bold")
    print_table(shown)


def _packages(found: Findings) -> list[tuple[str, str | None]]:
    def listed(required: bool) -> str:
        return ", ".join(
            f"{one.name} {one.version}"
            for one in found.packages
            if one.version is not None and (one.extra is None) == required
        )

    by_extra = {
        extra: ", ".join(one.name for one in of_extra)
        for extra, of_extra in groupby(found.absent, lambda one: one.extra)
    }
    lines: list[tuple[str, str | None]] = [("required", listed(True)), ("optional", listed(False))]
    lines += [("absent", f"{names}: pip install 'micropref[{extra}]'") for extra, names in by_extra.items()]
    return lines


def _machine(devices: Devices) -> list[tuple[str, str | None]]:
    memory = "" if devices.memory_gb is None else f", {devices.memory_gb:g} GB of memory"
    lines: list[tuple[str, str | None]] = [
        ("CPU", f"{counted(devices.cores, 'core')}, {counted(devices.threads, 'thread')} for kernels{memory}"),
        ("BLAS", "; ".join(devices.blas)),
    ]
    cards = [f"{one.name}, {one.memory_gb:g} GB, compute capability {one.capability}" for one in devices.cards]
    lines += [("CUDA card", card) for card in cards] or [("CUDA card", "none")]
    return [*lines, ("torch", _torch(devices)), ("faiss", _faiss(devices))]


def _torch(devices: Devices) -> str:
    if devices.torch is None:
        return "not installed"
    if devices.torch.seen is None:
        return f"cannot be imported: {devices.torch.failure}"
    build = devices.torch.seen
    if build.cuda is None:
        return f"{build.version}, a build for the CPU"
    return f"{build.version} for CUDA {build.cuda}, sees {counted(len(build.cards), 'card')}"


def _faiss(devices: Devices) -> str:
    if devices.faiss is None:
        return "not installed"
    if devices.faiss.seen is None:
        return f"cannot be imported: {devices.faiss.failure}"
    return f"sees {counted(devices.faiss_cards, 'card')}; the index of micropref is on the CPU"


def _variables(environment: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in environment.items())


def _checks(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=True, padding=(0, 1))
    for name in ("path", "input"):
        table.add_column(name)
    for name in ("heads", "error", "first ms", "then ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for one in checks:
        table.add_row(
            one.path,
            one.input,
            "" if one.n_components is None else str(one.n_components),
            "" if one.error is None else f"{one.error:.0e}",
            *("" if ms is None else f"{ms:.1f}" for ms in (one.first_ms, one.ms)),
            "ok" if one.passed else "FAILED",
            style=None if one.passed else "red",
        )
    return table
