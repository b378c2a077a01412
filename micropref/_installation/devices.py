"""Cores, memory, BLAS, and CUDA cards: those that the driver lists, and those that torch and faiss see."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_info

from micropref._installation.faults import sentence
from micropref._support.optional import require
from micropref._support.text import counted
from micropref.kernels._threads import available

__all__ = ["Card", "Devices", "Library", "TorchBuild", "devices"]

_ASKED = "name,memory.total,compute_cap"
_SECONDS = 30


@dataclass(frozen=True)
class Card:
    """A CUDA card.

    Attributes
    ----------
    name : str
    memory_gb : float
        In 10⁹ bytes.
    capability : str
        Compute capability, such as "9.0".
    """

    name: str
    memory_gb: float
    capability: str


@dataclass(frozen=True)
class TorchBuild:
    """What the installed torch sees.

    Attributes
    ----------
    version : str
    cuda : str or None
        Version of CUDA that it was built for; None for a build for the CPU.
    cards : list of Card
        Those that it can use.
    """

    version: str
    cuda: str | None
    cards: list[Card]


@dataclass(frozen=True)
class Library:
    """A library that was imported to be asked about its devices: its answer, or why it could not be imported.

    Attributes
    ----------
    seen : TorchBuild, int or None
        What it sees: for faiss a number of cards.
    failure : str or None
    """

    seen: Any
    failure: str | None


@dataclass(frozen=True)
class Devices:
    """What can compute here.

    Attributes
    ----------
    cores : int
        Of the machine.
    threads : int
        Threads that the kernels use.
    memory_gb : float or None
        Of the machine, in 10⁹ bytes; None where the system does not say.
    blas : list of str
        Name, version and threads of each BLAS that is loaded.
    cards : list of Card
        Those that the driver lists, or else those that torch sees.
    torch, faiss : Library or None
        None where they are not installed.
    """

    cores: int
    threads: int
    memory_gb: float | None
    blas: list[str]
    cards: list[Card]
    torch: Library | None
    faiss: Library | None

    @property
    def torch_cards(self) -> list[Card]:
        """Cards that torch sees."""
        return [] if self.torch is None or self.torch.seen is None else list(self.torch.seen.cards)

    @property
    def faiss_cards(self) -> int:
        """Number of cards that faiss sees."""
        return 0 if self.faiss is None or self.faiss.seen is None else int(self.faiss.seen)


def devices(has_torch: bool, has_faiss: bool) -> Devices:
    """Look at the machine; libraries that are installed are imported, since they say what they see only then."""
    torch = _asked(_torch_build) if has_torch else None
    faiss = _asked(_faiss_cards) if has_faiss else None
    seen = [] if torch is None or torch.seen is None else torch.seen.cards
    return Devices(
        cores=os.cpu_count() or 1,
        threads=available(),
        memory_gb=_memory_gb(),
        blas=_blas(),
        cards=driver_cards() or seen,
        torch=torch,
        faiss=faiss,
    )


def driver_cards() -> list[Card]:
    """Cards that nvidia-smi lists; none where it is absent or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, check=True, timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [card for line in done.stdout.splitlines() if (card := _card(line)) is not None]


def _card(line: str) -> Card | None:
    """A line of nvidia-smi: a name, which may hold commas, memory in MiB, and capability."""
    try:
        name, memory, capability = (part.strip() for part in line.rsplit(",", 2))
        return Card(name, round(float(memory) * 2**20 / 1e9, 1), capability)
    except ValueError:
        return None


def _asked(ask: Any) -> Library:
    try:
        return Library(ask(), None)
    except Exception as error:  # a broken library raises what it likes, and that is what is looked for here
        return Library(None, sentence(error))


def _torch_build() -> TorchBuild:
    torch = require("torch", "Looking for CUDA cards")
    n_cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(i) for i in range(n_cards)]
    cards = [Card(one.name, round(one.total_memory / 1e9, 1), f"{one.major}.{one.minor}") for one in found]
    return TorchBuild(str(torch.__version__), torch.version.cuda, cards)


def _faiss_cards() -> int:
    faiss = require("faiss", "Looking for CUDA cards")
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _blas() -> list[str]:
    """Sorted: in which order they are loaded changes from run to run."""
    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    return sorted({f"{one['internal_api']} {one['version']}, {counted(one['num_threads'], 'thread')}" for one in found})
