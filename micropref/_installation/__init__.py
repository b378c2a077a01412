"""What an installation is made of, and whether it computes what it should: the work behind `micropref doctor`."""

from __future__ import annotations

from micropref._installation.checks import Check
from micropref._installation.devices import Card, Devices, TorchBuild
from micropref._installation.findings import Findings, examine
from micropref._installation.packages import Package

__all__ = ["Card", "Check", "Devices", "Findings", "Package", "TorchBuild", "examine"]
