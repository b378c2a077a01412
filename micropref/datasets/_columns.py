"""Which column of a source holds what: by the names the caller gives, else by the tables of `_names`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from micropref.datasets._cells import is_conversation, unpacked
from micropref.datasets._faults import MalformedRowError, RowFault, ways_to_name
from micropref.datasets._file_labels import LabelReader, reads_as_labels
from micropref.datasets._names import (
    CHOSEN_PAIRS,
    GIVEN_PAIRS,
    canonical,
    columns_called,
    nearest,
    pairs_called,
    spelled,
)
from micropref.datasets._prompts import is_transcript
from micropref.datasets._sources import Source
from micropref.datasets._text import is_blank, listed, reads_like_text
from micropref.datasets._wide import hint_of_annotators

__all__ = [
    "Named",
    "find_label",
    "find_prompt",
    "find_responses",
    "holds_conversations",
    "may_be_prompt",
    "name_columns",
    "refuse_single_responses",
]

_THIRD = {"a": "c", "1": "3", "first": "third", "one": "three"}
_SINGLE_LABELS = ("label", "ktotag", "desirable", "score", "rating", "reward", "rank", "ranking")
_OF_LABELS = ("label", "preference", "winner", "better", "choice", "chosen", "prefer", "best", "vote", "select")
# Text about the comparison, which is no prompt.
_REMARK = re.compile(r"reason|rational|explan|comment|feedback|justif|critique|note|title|analysis|model|date|time")
# A conversation by these names is the prompt; text by them may be anything.
_ONLY_CONVERSATIONS = ("conversation", "conversations", "dialogue", "dialog", "messages")


@dataclass(frozen=True)
class Named:
    """The columns of a source under the names that count: those that the caller gives, else their own.

    Attributes
    ----------
    source : Source
    column_of : dict of str to str
        Column of the source by name.
    explicit : frozenset of str
        The names that the caller gives.
    """

    source: Source
    column_of: dict[str, str]
    explicit: frozenset[str] = field(default_factory=frozenset)

    def called(self, role: str) -> list[str]:
        """Names that stand for a role: the one that the caller gives, else those of the table."""
        if role in self.explicit:
            return [role]
        return [name for name in columns_called(role, self.column_of) if name not in self.explicit]

    def cells(self, name: str) -> list[Any]:
        """The cells of all readable rows under a name."""
        column = self.column_of[name]
        return [record.cells.get(column) for record in self.source.records if not record.fault]


def name_columns(source: Source, renamed: Mapping[str, str]) -> Named:
    """The columns of a source under the names that the caller gives them.

    Raises
    ------
    ValueError
        If a column is not there, gets two names, or a name is taken.
    """
    if not isinstance(renamed, Mapping):
        raise TypeError(f"columns: expected a mapping of names to columns, got {renamed!r}")
    present = source.columns
    if present:
        _check_renamed(source, renamed, present)
    new_name_of = dict(zip(renamed.values(), _given_names(renamed), strict=True))
    column_of = {str(new_name_of.get(name, name)): name for name in present}
    return Named(source, column_of, frozenset(new_name_of.values()) & column_of.keys())


def _given_names(renamed: Mapping[str, str]) -> list[str]:
    """The names that the caller gives: roles instead of their other names, unless these are a pair of responses."""
    paired = {name for pair in pairs_called(CHOSEN_PAIRS, renamed) for name in pair}
    return [new if new in paired else canonical(new) for new in renamed]


def _check_renamed(source: Source, renamed: Mapping[str, str], present: list[str]) -> None:
    for new, old in renamed.items():
        if not isinstance(new, str) or not isinstance(old, str):
            raise TypeError(f"columns: expected names as text, got {new!r}: {old!r}")
        if old not in present:
            raise ValueError(
                f"{source.name}: columns (in the shell --column): expected a column that is there as {new!r}, "
                f"got {old!r}; there are only {listed(present)}{nearest(old, present)}"
            )
        if list(renamed.values()).count(old) > 1:
            raise ValueError(f"{source.name}: expected columns to give {old!r} one new name, got more")
        if new in present and new not in renamed.values():
            raise ValueError(
                f"{source.name}: expected a free name for {old!r} in columns, got {new!r}, but there is a column "
                f"{new!r} as well; give that one another name, too: {ways_to_name({new: old, 'other': new})}"
            )
    roles = Counter(_given_names(renamed))
    twice = [role for role, count in roles.items() if count > 1]
    if twice:
        raise ValueError(f"{source.name}: expected one column for {twice[0]!r}, got more in columns={dict(renamed)}")


def find_responses(named: Named) -> tuple[list[tuple[str, str]], bool]:
    """Pairs of names with responses, those that the caller gives before all others, and whether the first is settled.

    A settled pair, such as chosen and rejected, says itself which response was preferred.

    Raises
    ------
    ValueError
        If there are more than two responses, or two columns have names that are spelled alike.
    """
    chosen = pairs_called(CHOSEN_PAIRS, named.column_of)
    given = pairs_called(GIVEN_PAIRS, named.column_of)
    explicit = [pair for pair in (*chosen, *given) if set(pair) <= named.explicit]
    if explicit:
        return explicit[:1], explicit[0] in chosen
    names = Counter(map(spelled, named.column_of))
    for pair in (*chosen, *given):
        for name in pair:
            if names[spelled(name)] > 1:
                alike = [one for one in named.column_of if spelled(one) == spelled(name)]
                raise ValueError(
                    f"{named.source.name}: expected one column of a name, got {listed(alike)}; give the others another "
                    f"name: {ways_to_name({f'other_{one}': named.column_of[one] for one in alike[1:]})}"
                )
    for first, second in given if not chosen else ():
        _refuse_more_responses(named, first, second)
    return [*chosen, *given], bool(chosen)


def _refuse_more_responses(named: Named, first: str, second: str) -> None:
    one, other = spelled(first), spelled(second)
    spellings = {spelled(name): name for name in named.column_of}
    for mark, third in _THIRD.items():
        candidates = {one[: -len(mark)] + third} if one.endswith(mark) else set()
        candidates |= {third + one[len(mark) :]} if one.startswith(mark) and len(one) > len(mark) + 2 else set()
        more = [spellings[name] for name in candidates if name in spellings and name not in (one, other)]
        if more:
            raise ValueError(
                f"{named.source.name}: expected two responses, got a third one in the column {more[0]!r} beside "
                f"{first!r} and {second!r}; name the two that were compared: "
                f"{ways_to_name({'response_a': named.column_of[first], 'response_b': named.column_of[second]})}"
            )


def find_label(named: Named, pair: tuple[str, str] | None, settled: bool, reader: LabelReader) -> list[str]:
    """Names of columns that say which response was preferred: the first in order, others if all their cells do so."""
    labels = [name for name in named.called("label") if name not in (pair or ())]
    if "label" in named.explicit:
        return ["label"]
    understood = [name for name in labels if reads_as_labels(named.source, named.column_of[name], reader)]
    by_name = labels[:1] if labels[:1] and spelled(labels[0]) == "label" else []
    if settled:
        return [name for name in labels if name in by_name or name in understood]
    # A column that has the first name and other cells is a fault of labels, unless another one has labels.
    sure = by_name or ([] if understood else labels[:1])
    return [name for name in labels if name in sure or name in understood]


def find_prompt(named: Named, taken: set[str]) -> tuple[list[str], str]:
    """Names of the columns that make up the prompt, and a note on how it was found.

    Raises
    ------
    ValueError
        If several columns may hold it.
    """
    if "prompt" in named.explicit:
        return ["prompt"], ""
    found = [name for name in named.called("prompt") if name not in taken and _may_be_prompt(named, name)]
    spellings = [spelled(name) for name in found]
    if not found:
        context = next((name for name in named.called("context") if name not in taken), None)
        if context is not None and "context" not in named.explicit and holds_conversations(named, context):
            return [context], "prompt: the conversation in context"
        return [], ""
    if spellings[0] == "prompt" or len(found) == 1:
        return found[:1], ""
    if sorted(spellings) == ["input", "instruction"]:
        return sorted(found, key=lambda name: spelled(name) != "instruction"), "prompt: instruction, then input"
    if all(named.cells(name) == named.cells(found[0]) for name in found[1:]):
        return found[:1], ""
    raise ValueError(
        f"{named.source.name}: expected one column with the prompt, got {listed(found)}; say which one to use: "
        f"{ways_to_name({'prompt': named.column_of[found[0]]})}"
    )


def may_be_prompt(named: Named, responses: Iterable[str], unused: Iterable[str]) -> str | None:
    """An unused column of text where nothing is known of the prompt; None where there is none."""
    known = [named.cells(name)[:1] for name in responses if name in named.column_of]
    if any(is_transcript(cell) or _is_conversation_cell(cell, "response") for cells in known for cell in cells):
        return None
    for name in unused:
        cells = [cell for cell in named.cells(name) if not _is_empty(cell)]
        n_texts = sum(reads_like_text(cell) or _is_conversation_cell(cell, name) for cell in cells)
        if n_texts > len(cells) / 2 and not _REMARK.search(spelled(name)):
            return name
    return None


def _may_be_prompt(named: Named, name: str) -> bool:
    return spelled(name) not in _ONLY_CONVERSATIONS or holds_conversations(named, name)


def holds_conversations(named: Named, name: str) -> bool:
    """Whether every cell that is not empty is a conversation, and there is one."""
    cells = [cell for cell in named.cells(name) if not _is_empty(cell)]
    return bool(cells) and all(_is_conversation_cell(cell, name) for cell in cells)


def _is_conversation_cell(cell: Any, name: str) -> bool:
    try:
        return is_conversation(unpacked(cell, name))
    except RowFault:
        return False


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and is_blank(cell))


def refuse_single_responses(named: Named) -> None:
    """A MalformedRowError for a source of single responses with ratings or thumbs, as for KTO: no comparisons."""
    responses = columns_called("response", named.column_of)
    conversations = [name for name in named.called("prompt") if spelled(name) in _ONLY_CONVERSATIONS]
    labels = [name for name in named.column_of if spelled(name) in _SINGLE_LABELS]
    if labels and (len(responses) == 1 or (conversations and not responses)):
        one = (responses or conversations)[0]
        raise MalformedRowError(
            f"{named.source.name}: expected two responses in each row, got single responses in the column {one!r} with "
            f"{listed(labels)}, as for KTO; single labels do not say which of two responses to the same prompt is "
            "preferred: make pairs of a good and a bad response to the same prompt, as chosen and rejected"
        )


def expected_columns(named: Named, pairs: Sequence[tuple[str, str]], reader: LabelReader) -> MalformedRowError:
    """The error about a source whose columns are no layout, with the nearest column and the way out."""
    source = named.source
    readable = next(record for record in source.records if not record.fault)
    columns = list(named.column_of)
    where = source.place(readable)
    if pairs:
        first, second = pairs[0]
        others = [name for name in columns if name not in (first, second)]
        hint = hint_of_annotators(source, reader)
        apart = set(_numbered_alike(others))  # as votes_a and votes_b: neither of them alone is the label
        label = "NAME" if hint else _like(_OF_LABELS, [name for name in others if name not in apart])
        return MalformedRowError(
            f"{where}: expected chosen and rejected, or {first} and {second} with a label, a column that says which "
            f"was preferred (label, preference, winner, better, choice), got the columns {listed(columns)}"
            f"{hint}; say which one it is: {ways_to_name({'label': label})}"
        )
    first, second = _numbered_alike(columns)
    label = _like(_OF_LABELS, [name for name in columns if name not in (first, second)])
    names = {"response_a": first, "response_b": second, "label": label}
    return MalformedRowError(
        f"{where}: expected chosen and rejected, or response_a and response_b (or the like) with a label, got the "
        f"columns {listed(columns)}; say which is which: "
        f"{ways_to_name({'chosen': _like(['chosen'], columns), 'rejected': _like(['rejected'], columns)})}, or "
        f"{ways_to_name(names)}"
    )


def _like(names: Sequence[str], columns: Sequence[str]) -> str:
    """The column whose name is nearest to one of several, or NAME."""
    spellings = {spelled(column): column for column in columns}
    held = next((column for key, column in spellings.items() if any(name in key for name in names)), None)
    close = (match for name in names for match in get_close_matches(name, spellings, n=1, cutoff=0.75))
    return held or next((spellings[match] for match in close), "NAME")


def _numbered_alike(columns: Sequence[str]) -> tuple[str, str]:
    """Two columns whose names differ in the last letter only, such as response_j and response_k, or NAME twice."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in columns:
        alike[name[:-1]].append(name)
    first, second = next((names for stem, names in alike.items() if len(stem) > 2 and len(names) == 2), ["NAME"] * 2)
    return first, second
