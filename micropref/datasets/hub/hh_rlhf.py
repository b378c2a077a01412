"""HH-RLHF: whole dialogues, one chosen and one rejected."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

from micropref.datasets._chat import Message
from micropref.datasets._prompts import split_implicit
from micropref.datasets._text import is_blank, listed
from micropref.datasets.hub._open import has_files, open_splits
from micropref.datasets.hub._rows import Comparison, Reading, text_of
from micropref.datasets.preference_set import PreferenceSet
from micropref.datasets.table import PreferenceTable

__all__ = ["load_hh_rlhf"]

_COLUMNS = ("chosen", "rejected")
_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def load_hh_rlhf(
    source: Any = None,
    *,
    subset: str | tuple[str, ...] = _SUBSETS,
    revision: str | None = None,
    skip_bad: bool = False,
) -> PreferenceSet:
    r"""Load HH-RLHF: preferences about helpfulness and harmlessness between two dialogues with a common beginning.

    A dialogue is one text, ``"\n\nHuman: ...\n\nAssistant: ..."``. The turns with which both begin are the prompt,
    the rest of each is the response. Helpful and harmless subsets were collected under opposite instructions, so
    ``extra["subset"]`` is a hidden context; people are not named. The red-team dialogues on the hub are no comparisons
    and are not read. Rows with the same text twice, or with an empty answer, are bad.

    Licence: MIT. Citation: Yuntao Bai, Andy Jones, Kamal Ndousse, Amanda Askell, Anna Chen and others (2022), "Training
    a Helpful and Harmless Assistant with Reinforcement Learning from Human Feedback", arXiv:2204.05862.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``Anthropic/hh-rlhf`` on the hub. Rows in no named split become `train`.
    subset : str or tuple of str, optional
        Subsets to read from the hub or from a copy of its folders; by default "harmless-base", "helpful-base",
        "helpful-online" and "helpful-rejection-sampled". Rows from elsewhere are all read.
    revision : str, optional
        Commit, tag or branch on the hub.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `train` and `test`. Extra column: ``subset``, from a column of that name where rows do not come from a
        subset's folder, None if there is none.

    Raises
    ------
    MalformedRowError
        At the first bad row.
    ImportError
        If `datasets` is needed and not installed.
    """
    subsets = (subset,) if isinstance(subset, str) else tuple(subset)
    if not subsets or not set(subsets) <= set(_SUBSETS):
        raise ValueError(f"expected subset to be of {listed(_SUBSETS)}, got {subset!r}")
    opened = [
        (
            folder,
            open_splits(source, hub_name="Anthropic/hh-rlhf", columns=_COLUMNS, revision=revision, data_dir=folder),
        )
        for folder in (subsets if has_files(source) else (None,))
    ]
    tables: dict[str, PreferenceTable] = {}
    for split in ("train", "test") if opened[0][1].is_named else ("train",):
        tables[split] = PreferenceTable.concat(
            _table(Reading(one.split(split), skip_bad), folder) for folder, one in opened
        )
    return PreferenceSet(
        name="HH-RLHF",
        **tables,
        licence="MIT",
        citation="Bai, Jones, Ndousse, Askell, Chen and others (2022), Training a Helpful and Harmless Assistant with "
        "Reinforcement Learning from Human Feedback, arXiv:2204.05862",
        source=opened[0][1].source,
    )


def _table(reading: Reading, folder: str | None) -> PreferenceTable:
    return reading.table([row for _, row in reading.each(lambda cells: _comparison(cells, folder), _COLUMNS)])


def _comparison(cells: Mapping[str, Any], folder: str | None) -> Comparison:
    prompt, chosen, rejected = split_implicit(*(_dialogue(text_of(cells, name), name) for name in _COLUMNS))
    return Comparison(prompt, chosen, rejected, extra={"subset": folder or cells.get("subset")})


def _dialogue(text: str, column: str) -> list[Message]:
    before, *turns = _TURN.split(text)
    if not turns or not is_blank(before):
        raise ValueError(
            f"expected a dialogue that begins with '\\n\\nHuman:', got {reprlib.repr(text)} in column {column!r}"
        )
    return [(_ROLES[who], said.strip()) for who, said in zip(turns[::2], turns[1::2], strict=True)]
