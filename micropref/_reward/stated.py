"""Contexts that the training rows of a model state: whether they act on the responses, and how that is said."""

from __future__ import annotations

import warnings
from dataclasses import replace

from micropref._support.warnings import level_of_caller
from micropref.datasets._text import is_blank
from micropref.datasets.table import PreferenceTable
from micropref.distributed import Communicator
from micropref.embed import PairEncoder
from micropref.features.interactions import ContextInteractions

__all__ = ["with_blank_contexts", "with_stated_contexts"]


def with_stated_contexts(
    encoder: PairEncoder, table: PreferenceTable, interactions: bool | ContextInteractions | None, ranks: Communicator
) -> PreferenceTable:
    """Set what acts in an unfitted encoder, and give the rows that it learns from.

    Parameters
    ----------
    encoder : PairEncoder
        Unfitted; its parameter `interactions` is set.
    table : PreferenceTable
        Training rows of this rank.
    interactions : bool or ContextInteractions, optional
        None: the encoder's own setting, or where it has none, whether a row of any rank states a context. A
        `UserWarning` says so.
    ranks : Communicator

    Returns
    -------
    table : PreferenceTable
        Without contexts where they do not act: those are for the router.
    """
    if interactions is None and not encoder.interactions:
        states = table.context is not None and not all(map(is_blank, table.context))
        interactions = any(ranks.exchange(states))
        if interactions and ranks.rank == 0:
            warnings.warn(
                "the rows have contexts, so these act on the responses, as features of ContextInteractions; pass "
                "interactions=True (--interactions) to confirm this, or interactions=False (--no-interactions) to "
                "leave contexts to the router",
                UserWarning,
                stacklevel=level_of_caller(),
            )
    if interactions is not None:
        encoder.set_params(interactions=interactions or None)
    acts = bool(encoder.interactions) or encoder.clauses
    return with_blank_contexts(table) if acts and _any_column(table, ranks) else replace(table, context=None)


def _any_column(table: PreferenceTable, ranks: Communicator) -> bool:
    """Whether the rows of a rank have a column of contexts; without any, the encoder says that it needs one."""
    return any(ranks.exchange(table.context is not None))


def with_blank_contexts(table: PreferenceTable) -> PreferenceTable:
    """The table, with blank contexts where it has none."""
    return table if table.context is not None else replace(table, context=[""] * len(table))
