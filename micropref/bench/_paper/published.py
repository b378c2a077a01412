"""Which rows the tables have, the figure that was published for each, and whether by the same protocol.

Published figures are quoted from Shen et al., "MiCRo: Mixture Modeling and Context-aware Routing for Personalized
Preference Learning", EMNLP 2025, arXiv:2505.24846, and from Bose et al., "LoRe", with its issue 1. None of them comes
from the protocol of this suite: each says in a note in which way it differs.
"""

from __future__ import annotations

from dataclasses import dataclass

# Notes on published figures.
_SPLIT = "other test rows"
_ON_699 = "nine attributes, 699 test rows"
_HEADS_BY_TEST = "attributes and test rows are others; balance 0.5 (here 0)"
_ROUTER = "router of 128 units, temperature 1e-3 to 1e-4, balance 0.5 (here linear, 1, 0)"
_UNKNOWN = "no annotators known"
_LARGER = "an 8B model trained on other ratings"


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes
    ----------
    method : str
        Name of the method in the suite.
    label : str
        What it is called in the table.
    published : float or None
    protocol : str
        In which way the published figure is of another protocol; empty where there is none.
    """

    method: str
    label: str
    published: float | None = None
    protocol: str = ""


@dataclass(frozen=True)
class Part:
    """The rows of a table on one data set.

    Attributes
    ----------
    dataset : str
        Name in the suite.
    title : str
    lines : tuple of Line
    budgets : tuple of int
        Labels for each context or user; none: the largest budget there is.
    """

    dataset: str
    title: str
    lines: tuple[Line, ...]
    budgets: tuple[int, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table.

    Attributes
    ----------
    number : int
        By which it is asked for.
    title, about : str
    parts : tuple of Part
    shows : {"accuracy", "by attribute", "by budget", "weights"}
    """

    number: int
    title: str
    about: str
    parts: tuple[Part, ...]
    shows: str = "accuracy"


_STAGE_1 = ("MiCRo, gate of prompts", "MiCRo, annotators known")
_MICRO = "MiCRo, annotators known"
_STATIC, _HYRE = "static mixture, annotators known", "MiCRo-HyRe, annotators known"
_HELPSTEER2_LINES = (
    Line("single", "single reward", 0.7632, _SPLIT),
    Line("static", _STATIC, 0.7598, f"{_SPLIT}; {_UNKNOWN}"),
    Line("ensemble-best", "shared base, best head"),
    Line("hyre", "HyRe", 0.7329, _SPLIT),
    Line("micro-prompts", "MiCRo, gate of prompts", 0.7830, f"{_SPLIT}; {_ROUTER}"),
    Line("micro", _MICRO),
    Line("micro-mlp", f"{_MICRO}, router of 128 units"),
    Line("micro-history", f"{_MICRO}, labels as history"),
    Line("hyre-micro", _HYRE, 0.7883, f"{_SPLIT}; {_UNKNOWN}"),
    Line("multi-objective", "multi-objective (needs ratings)"),
    Line("oracle", "one reward per attribute"),
)
_RPR_LINES = (
    Line("single", "single reward", 0.6594, _ON_699),
    Line("static", _STATIC, 0.7836, f"{_ON_699}; {_UNKNOWN}"),
    Line("ensemble-best", "shared base, best head", 0.7629, _ON_699),
    Line("hyre", "HyRe", 0.6823, _ON_699),
    Line("micro-prompts", "MiCRo, gate of prompts", 0.8218, f"{_ON_699}; {_ROUTER}"),
    Line("micro", _MICRO),
    Line("micro-mlp", f"{_MICRO}, router of 128 units"),
    Line("micro-history", f"{_MICRO}, labels as history"),
    Line("hyre-micro", _HYRE, 0.8974, f"{_ON_699}; {_UNKNOWN}"),
    Line("multi-objective", "multi-objective (needs ratings)", 0.8403, f"{_ON_699}; {_LARGER}"),
    Line("oracle", "one reward per category"),
)
_CROSS = (
    Line("single", "single reward"),
    Line("static", _STATIC),
    Line("ensemble-best", "shared base, best head"),
    Line("hyre", "HyRe"),
    Line("micro-prompts", "MiCRo, gate of prompts", 0.8133, f"{_ON_699}; {_ROUTER}; best baseline .7851"),
    Line("micro", _MICRO),
    Line("micro-history", f"{_MICRO}, labels as history"),
    Line("hyre-micro", _HYRE),
    Line("multi-objective", "multi-objective (needs ratings)"),
)
_BUDGETED = ("micro-prompts", "micro", "micro-history", "hyre-micro", "hyre")
_USERS = (
    Line("single", "single reward"),
    Line("static", "static mixture"),
    Line("micro-history", "MiCRo, labels as history"),
    Line("hierarchical", "users around heads"),
    Line("hyre", "HyRe"),
    Line("hyre-micro", "MiCRo-HyRe"),
    Line("user-rewards", "one reward per user"),
)
_LORE = "unseen users by another split; .595 in a rerun"


def _heads(published: float) -> tuple[Line, ...]:
    return (
        Line("single", "single reward"),
        Line("best-head-prompts", f"best head of {_STAGE_1[0]}", published, _HEADS_BY_TEST),
        Line("best-head", f"best head of {_STAGE_1[1]}"),
        Line("oracle", "one reward per attribute"),
    )


def _budgeted(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    return tuple(one for one in lines if one.method in _BUDGETED)


_NUMBERS = tuple(Line(f"micro-k{k}", f"{k} heads" if k > 1 else "1 head") for k in (1, 2, 4, 6, 8, 12))

TABLES: dict[int, PaperTable] = {
    table.number: table
    for table in (
        PaperTable(
            1,
            "Stage 1: the best head for each attribute",
            "The head that is right about most training labels of an attribute, judged on its test pairs.",
            (Part("helpsteer2-heads", "HelpSteer2", _heads(0.811)), Part("rpr-heads", "RPR", _heads(0.921))),
            "by attribute",
        ),
        PaperTable(
            2,
            "Stage 2: routed by 50 labels for each attribute",
            "Heads are frozen; 50 labelled training pairs of each attribute teach the router. A method that uses no "
            "labels has one figure; the multi-objective model also knows ratings of single responses, and the stated "
            "attributes in training.",
            (Part("helpsteer2", "HelpSteer2", _HELPSTEER2_LINES, (50,)), Part("rpr", "RPR", _RPR_LINES, (50,))),
        ),
        PaperTable(
            3,
            "Across data sets: heads of HelpSteer2, routed on RPR",
            "Heads are learned from HelpSteer2 alone, labels and test pairs are those of RPR.",
            (Part("helpsteer2-to-rpr", "HelpSteer2 to RPR", _CROSS, (50,)),),
        ),
        PaperTable(
            4,
            "The number of heads",
            f"{_MICRO}, routed by 50 labels for each attribute.",
            (Part("helpsteer2-numbers", "HelpSteer2", _NUMBERS), Part("rpr-numbers", "RPR", _NUMBERS)),
        ),
        PaperTable(
            5,
            "Labels for each attribute (Figure 4)",
            "The same methods with fewer labels and with more; 0: before any label.",
            (
                Part("helpsteer2", "HelpSteer2", _budgeted(_HELPSTEER2_LINES)),
                Part("rpr", "RPR", _budgeted(_RPR_LINES)),
            ),
            "by budget",
        ),
        PaperTable(
            6,
            "Weights of the router (Figure 3)",
            f"Mean weight of each head on the test pairs of each attribute, by the most labels ({_MICRO}, first seed).",
            (
                Part("helpsteer2", "HelpSteer2", (Line("micro", _MICRO),)),
                Part("rpr", "RPR", (Line("micro", _MICRO),)),
            ),
            "weights",
        ),
        PaperTable(
            7,
            "Beyond the paper: people",
            "PRISM: people who are not in training, by 20 votes of their own; PersonalRewardBench: the authors' own "
            "split of each person's pairs, all earlier ones being labels.",
            (
                Part("prism", "PRISM", (*_USERS, Line("lore", "LoRe", 0.710, _LORE)), (20,)),
                Part("personal-reward-bench", "PersonalRewardBench", (*_USERS, Line("lore", "LoRe"))),
            ),
        ),
    )
}
