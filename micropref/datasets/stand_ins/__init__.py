"""Made-up stand-ins of the published sets, in the schema of each: for tests and rehearsals, not data.

The sets themselves lie on a hub. Where that cannot be reached, or should not be, a stand-in has the same splits,
columns and types, so that the same loader reads it, and texts in which attributes are planted as words, so that methods
order as planted. No figure that comes from a stand-in says anything about the published set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from micropref.datasets._text import listed
from micropref.datasets.stand_ins._compared import RPR_CATEGORIES, hh_rlhf, reward_bench, reward_bench_v1, rpr
from micropref.datasets.stand_ins._rated import helpsteer2, ultrafeedback
from micropref.datasets.stand_ins._users import USER_TASTES, personal_reward_bench, prism
from micropref.datasets.stand_ins._words import ATTRIBUTES, planted_levels

__all__ = ["ATTRIBUTES", "RPR_CATEGORIES", "STAND_INS", "USER_TASTES", "make_stand_in", "planted_levels"]


class _Maker(NamedTuple):
    rows: Callable[[int, np.random.RandomState], list[dict[str, Any]]]
    n: int
    # Size of each split, as a share of n.
    splits: Mapping[str, float]


_MAKERS: Mapping[str, _Maker] = MappingProxyType(
    {
        "helpsteer2": _Maker(helpsteer2, 2000, {"train": 1.0, "validation": 0.25}),
        "hh_rlhf": _Maker(hh_rlhf, 2000, {"train": 1.0, "test": 0.25}),
        "personal_reward_bench": _Maker(personal_reward_bench, 2400, {"train": 0.6, "val": 0.2, "test": 0.2}),
        "prism": _Maker(prism, 3600, {"train": 1.0}),
        "reward_bench": _Maker(reward_bench, 600, {"test": 1.0}),
        "reward_bench_v1": _Maker(reward_bench_v1, 1000, {"filtered": 0.5, "raw": 1.0}),
        "rpr": _Maker(rpr, 2000, {"train": 1.0, "test": 0.25}),
        "ultrafeedback": _Maker(ultrafeedback, 400, {"train": 1.0}),
    }
)
#: Names of the sets that have a stand-in.
STAND_INS: tuple[str, ...] = tuple(_MAKERS)


def make_stand_in(name: str, n: int | None = None, *, random_state: Any = 0) -> dict[str, list[dict[str, Any]]]:
    """Made-up records in the published schema of a set, by split; its loader takes them as `source`.

    Responses hold words that plant the levels 0 to 4 of ten attributes (`ATTRIBUTES`, `planted_levels`); the rest of a
    text is noise, and so are some ratings and choices.

    - ``rpr``: each of nine categories (`RPR_CATEGORIES`) has a taste in attributes, and its criteria name it; six rare
      categories have opposite tastes.
    - ``helpsteer2``: ratings are the levels of the five attributes of that name, three in ten off by one.
    - ``ultrafeedback``: ratings of the four aspects are levels of one attribute each, in the same way.
    - ``prism``, ``personal_reward_bench``: each user has one of four tastes (`USER_TASTES`), with small deviations.
    - ``hh_rlhf``: dialogues to be harmless and dialogues to be helpful have opposite tastes in helpfulness.
    - ``reward_bench`` (version 2), ``reward_bench_v1``: right answers are more correct.

    Parameters
    ----------
    name : str
        One of `STAND_INS`: the name of the loader without ``load_``, or "reward_bench_v1".
    n : int, optional
        Records as published of the whole first split (of all splits of ``personal_reward_bench``, of the split "raw" of
        ``reward_bench_v1``), by default from 400 to 3 600, so that tables have a few thousand rows. Others are a
        quarter of it. Of ``helpsteer2`` and ``prism``, whose records belong together, a few more.
    random_state : int, RandomState or None, default=0

    Returns
    -------
    dict of str to list of dict
        The records of each split.

    Raises
    ------
    ValueError
        If there is no stand-in of that name, or `n` is too small for every split to have a record.

    Examples
    --------
    >>> from micropref.datasets import load_rpr
    >>> from micropref.datasets.stand_ins import make_stand_in
    >>> loaded = load_rpr(make_stand_in("rpr", 100))
    >>> len(loaded.train), len(loaded.test)
    (200, 50)
    """
    if name not in _MAKERS:
        raise ValueError(f"expected a set with a stand-in, one of {listed(STAND_INS)}, got {name!r}")
    maker = _MAKERS[name]
    if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 8):
        raise ValueError(f"expected n to be an integer of at least 8, got {n!r}")
    rng = check_random_state(random_state)
    size = maker.n if n is None else int(n)
    return {split: maker.rows(max(round(share * size), 1), rng) for split, share in maker.splits.items()}
