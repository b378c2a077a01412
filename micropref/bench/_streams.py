"""Streams of random numbers of a seed: what is drawn from one changes nothing that is drawn from another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

# How the labels of a target are chosen, for methods with a rule for what to ask: drawn, as for all others, or asked for
# by that rule; of micropref's own also by what an answer says of the answers to the other questions.
DRAWN, ASKED, EPIG = "drawn", "asked", "epig"


class Stream(IntEnum):
    """What random numbers are drawn for."""

    SPLIT = 0
    ANNOTATORS = 1
    ORDER = 2
    LABELS = 3
    CONTROLS = 4


def generator(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """A new generator at the start of a stream."""
    return np.random.default_rng([seed, int(stream), *more])
