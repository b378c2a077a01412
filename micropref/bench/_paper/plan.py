"""From what is asked for to the suite that is run: which tables, which encoder, real sets or their stand-ins."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from micropref.bench._paper.published import TABLES, PaperTable
from micropref.bench._specs import KINDS

# Records of each stand-in, as of its first published split.
_STAND_INS = {"helpsteer2": 3000, "rpr": 4000, "prism": 14400, "personal_reward_bench": 2400}
# What a rehearsal has less of than the suite.
_SMALL: Mapping[str, Any] = {"seeds": [0], "n_draws": 2, "n_resamples": 500}
_SLOW = ("micro-mlp", "hierarchical", "micro-k8", "micro-k12")
_SMALL_BUDGETS = {"stage 2": [0, 5, 50], "prism": [0, 5, 20], "personal-reward-bench": [0, 5, 1000]}
_FEW_HEADS = 32


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes
    ----------
    tables : tuple of int
        Numbers of `TABLES`; none: all.
    encoder : str
        Name, path or address of another encoder than the suite's; empty: the suite's.
    small : bool
        Stand-ins instead of the published sets, and the hashing encoder unless another one is given.
    """

    tables: tuple[int, ...] = ()
    encoder: str = ""
    small: bool = False

    @property
    def has_reward_model(self) -> bool:
        """Whether the encoder is a causal reward model: the suite's, or another of its kind."""
        return not self.encoder or self.encoder.startswith("last-token:")

    def chosen(self) -> tuple[PaperTable, ...]:
        """The tables, in their order.

        Raises
        ------
        ValueError
            For a number that no table has.
        """
        for number in self.tables:
            if number not in TABLES:
                raise ValueError(f"tables: expected numbers among {', '.join(map(str, TABLES))}, got {number}")
        return tuple(table for number, table in TABLES.items() if number in (self.tables or TABLES))

    def left_out(self) -> tuple[str, ...]:
        """ "TITLE of a part: LABEL of a row" that the tables have and a rehearsal does not run, because it is slow.

        Raises
        ------
        ValueError
            For a number that no table has.
        """
        lines = ((part, line) for table in self.chosen() for part in table.parts for line in part.lines)
        found = (f"{part.title}: {line.label}" for part, line in lines if self.small and line.method in _SLOW)
        return tuple(dict.fromkeys(found))

    def suite(self) -> dict[str, Any]:
        """The suite as `run_suite` takes it, with the data sets and methods that the tables need.

        Raises
        ------
        ValueError
            For a number that no table has.
        """
        content = tomllib.loads(Path(__file__).with_name("paper.toml").read_text(encoding="utf-8"))
        needed: dict[str, list[str]] = {}
        for table in self.chosen():
            for part in table.parts:
                needed.setdefault(part.dataset, []).extend(line.method for line in part.lines)
        own = [one for one in content["datasets"] if one["name"] in needed]
        by_name = {one["name"]: one for one in content["datasets"]}
        rated = {one["name"] for one in content["methods"] if "ratings" in KINDS[one["kind"]].information}
        read = [one for one in own if rated & set(needed[one["name"]])]
        names = {name for one in read for name in (one["name"], one.get("taught_by"))}
        for name in by_name.keys() - names:
            # Ratings that no method of these tables reads would be embedded for nothing.
            by_name[name].pop("ratings", None)
        for one in own:
            if one.get("taught_by", one["name"]) not in needed:
                # A data set that only teaches has no figures of its own.
                one["taught_by"] = self._changed(by_name[one["taught_by"]], [])
        content["datasets"] = [self._changed(one, needed[one["name"]]) for one in own]
        if self.small:
            content |= _SMALL
        used = {name for one in content["datasets"] for name in one["methods"]}
        methods = [one for one in content["methods"] if one["name"] in used]
        content["methods"] = [self._lighter(one) for one in methods] if self.small else methods
        return content

    def _changed(self, dataset: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
        changed = dict(dataset)
        if methods:
            # Of the methods of the suite on this data set those that a chosen table shows.
            patterns = changed.get("methods", ["*"])
            kept = [one for one in dict.fromkeys(methods) if any(fnmatchcase(one, pattern) for pattern in patterns)]
            changed["methods"] = [one for one in kept if not (self.small and one in _SLOW)]
        else:
            changed.pop("methods", None)
        if self.small:
            changed |= {"stand_in": _STAND_INS[changed["loader"]], "encoder": "hashing"}
            name = "stage 2" if len(changed.get("budgets", [])) > 5 else changed["name"]
            if name in _SMALL_BUDGETS:
                changed["budgets"] = _SMALL_BUDGETS[name]
        if self.encoder:
            changed["encoder"] = self.encoder
        return changed

    @staticmethod
    def _lighter(method: Mapping[str, Any]) -> dict[str, Any]:
        few = {"n_components": _FEW_HEADS} if method["kind"] in ("hyre", "ensemble_best") else {}
        return {**method, **few}
