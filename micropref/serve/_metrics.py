"""Metrics in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

__all__ = ["Metrics"]

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counts of requests and the time that they took, written by the loop's thread alone."""

    def __init__(self) -> None:
        self._requests: dict[_Labels, int] = defaultdict(int)
        self._seconds: dict[str, list[float]] = {}

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request; the path is that of its route, without ids."""
        self._requests[("method", method), ("path", path), ("status", str(status))] += 1
        # Counts below each bound and in all, then the sum.
        found = self._seconds.setdefault(path, [0.0] * (len(_BOUNDS_S) + 2))
        for i, bound in enumerate(_BOUNDS_S):
            found[i] += seconds <= bound
        found[-2] += 1
        found[-1] += seconds

    def text(self, gauges: Mapping[str, tuple[str, str, float]]) -> str:
        """All metrics.

        Parameters
        ----------
        gauges : mapping of str to tuple
            Further ones by name: their type ("gauge" or "counter"), what they are, and their value.
        """
        lines = ["# HELP micropref_requests_total Requests answered.", "# TYPE micropref_requests_total counter"]
        lines += [f"micropref_requests_total{{{_shown(labels)}}} {n}" for labels, n in sorted(self._requests.items())]
        name = "micropref_request_seconds"
        lines += [f"# HELP {name} Time from the request to the end of its answer.", f"# TYPE {name} histogram"]
        for path, found in sorted(self._seconds.items()):
            label = _shown((("path", path),))
            for bound, n in zip((*map(str, _BOUNDS_S), "+Inf"), found, strict=False):
                lines.append(f'{name}_bucket{{{label},le="{bound}"}} {n:g}')
            lines += [f"{name}_sum{{{label}}} {found[-1]!r}", f"{name}_count{{{label}}} {found[-2]:.0f}"]
        for gauge, (kind, meaning, value) in gauges.items():
            lines += [f"# HELP {gauge} {meaning}", f"# TYPE {gauge} {kind}", f"{gauge} {value!r}"]
        return "\n".join(lines) + "\n"


def _shown(labels: _Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
