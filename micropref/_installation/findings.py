"""All that is found out about an installation, what is wrong with it, and what would make it better."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from micropref._installation.checks import Check, cases, check, faiss_checks
from micropref._installation.choices import Choice, choices
from micropref._installation.devices import Devices, devices
from micropref._installation.packages import Package, installed_version, packages
from micropref._installation.variables import environment, unusable

__all__ = ["Findings", "examine"]


@dataclass(frozen=True)
class Findings:
    """What `examine` found.

    Attributes
    ----------
    micropref, python, system : str
        Versions, and what kind of machine it is.
    installed : str or None
        Version in the metadata of micropref; None where there are none.
    packages : list of Package
    devices : Devices
    environment : dict of str to str
        Variables that are set and change what is computed where.
    choices : list of Choice
    checks : list of Check
    """

    micropref: str
    python: str
    system: str
    installed: str | None
    packages: list[Package]
    devices: Devices
    environment: dict[str, str]
    choices: list[Choice]
    checks: list[Check]

    @property
    def problems(self) -> list[str]:
        """What does not work, a sentence each; none where all is well."""
        found = [
            f"{one.name}: expected version {one.at_least} or newer, got {one.version}"
            for one in self.packages
            if one.is_too_old
        ]
        missing = [one for one in self.packages if one.extra is None and one.version is None]
        found += [f"{one.module}: expected it to be installed, got nothing" for one in missing]
        for name, library in (("torch", self.devices.torch), ("faiss", self.devices.faiss)):
            if library is not None and library.failure is not None:
                found.append(f"{name}: expected a library that can be imported, got {library.failure}")
        return [*found, *(one.problem for one in self.checks if not one.passed)]

    @property
    def absent(self) -> list[Package]:
        """Optional packages that could be installed: triton is a part of builds of torch for CUDA, and of no other."""
        build = None if self.devices.torch is None else self.devices.torch.seen
        without = () if build is not None and build.cuda is not None else ("triton",)
        return [
            one for one in self.packages if one.version is None and one.extra is not None and one.module not in without
        ]

    @property
    def advice(self) -> list[str]:
        """What would make it better, a sentence each."""
        lines = (_about_installed(self), _about_torch(self), _about_numba(self), *_about_faiss(self))
        return [*unusable(self.environment), *(line for line in lines if line is not None)]

    def fails(self, choice: Choice) -> bool:
        """Whether a check of the path that computes these rows failed."""
        return any(one.covers(choice) and not one.passed for one in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "advice": self.advice,
            **asdict(self),
            "packages": [asdict(one) | {"name": one.name} for one in self.packages],
            "choices": [asdict(one) | {"failed": self.fails(one)} for one in self.choices],
            "checks": [asdict(one) | {"passed": one.passed, "error": _finite(one.error)} for one in self.checks],
        }


def examine(step: Callable[[str], None] = lambda _: None) -> Findings:
    """Look at packages and devices, and compute a small example in every way that can run here.

    Parameters
    ----------
    step : callable, optional
        Is given a few words before whatever may take a second, or end the process.

    Returns
    -------
    findings : Findings
    """
    from micropref import __version__

    step("reading versions")
    found = packages()
    there = {one.module for one in found if one.version is not None}
    step("looking for devices")
    machine = devices("torch" in there, "faiss" in there)
    checked = []
    for case in cases(machine, "numba" in there, "triton" in there):
        compiled = ", which is compiled at its first use" if case.path in ("numba", "triton") else ""
        step(f"checking {case.path}, {case.dtype}, {case.device}{compiled}")
        checked.append(check(case))
    checked += faiss_checks(machine)
    return Findings(
        __version__,
        platform.python_version(),
        platform.platform(),
        installed_version(),
        found,
        machine,
        environment(),
        choices(machine),
        checked,
    )


def _finite(error: float | None) -> float | None:
    return None if error is None or error == float("inf") else error


def _about_installed(found: Findings) -> str | None:
    """A working copy that went on after it was installed."""
    if found.installed in (None, found.micropref):
        return None
    return (
        f"The installed metadata are of micropref {found.installed}, but the code is {found.micropref}; packages are "
        f"compared with the requirements of {found.installed}. Run pip install -e . again."
    )


def _about_torch(found: Findings) -> str | None:
    """A card that torch cannot use, or for which its kernels are not compiled."""
    machine = found.devices
    if not machine.cards:
        return None
    if machine.torch is None:
        return "This machine has a CUDA card, but no torch: pip install 'micropref[embed]' embeds texts and fits on it."
    if machine.torch.seen is None or machine.torch_cards:
        return None if not machine.torch_cards else _about_triton(found)
    build = machine.torch.seen
    if build.cuda is None:
        return f"This machine has a CUDA card, but torch {build.version} is a build for the CPU: install one for CUDA."
    hidden = found.environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return f"torch sees none of the CUDA cards: CUDA_VISIBLE_DEVICES is {hidden!r}."
    return f"torch {build.version} for CUDA {build.cuda} sees none of the CUDA cards: the driver may be too old for it."


def _about_triton(found: Findings) -> str | None:
    slow = [one for one in found.choices if one.rows.startswith("CUDA tensors in half") and one.path != "triton"]
    return "Triton 3.3 or newer is missing, so every pass reads CUDA tensors twice." if slow else None


def _about_numba(found: Findings) -> str | None:
    if _version(found, "numba") is None:
        return "Fits of large data are two to six times faster with numba: pip install 'micropref[numba]'."
    if found.environment.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "NUMBA_DISABLE_JIT turns off the compiler that micropref's functions need: unset NUMBA_DISABLE_JIT."
    return None


def _about_faiss(found: Findings) -> list[str]:
    lines = []
    names = next(one.distributions for one in found.packages if one.module == "faiss")
    if len(names) > 1:
        lines.append(
            f"{' and '.join(names)} write over each other's files: pip uninstall {' '.join(names)}, then install one."
        )
    if found.devices.cards and any("gpu" in name for name in names) and not found.devices.faiss_cards:
        lines.append(f"{' and '.join(names)} sees no CUDA card: its version of CUDA may be another than the driver's.")
    return lines


def _version(found: Findings, module: str) -> str | None:
    return next(one.version for one in found.packages if one.module == module)
