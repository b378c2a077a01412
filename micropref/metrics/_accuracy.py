"""Whether predictions are right, with a tie for one half."""

from __future__ import annotations

import numpy as np


def tie_half(log_odds: np.ndarray, signs: np.ndarray | None = None) -> np.ndarray:
    """1 where the preferred response was predicted, 0 where the other one was, ½ where neither was.

    So the mean, which is the accuracy, is the same whichever response of a pair is called first.

    Parameters
    ----------
    log_odds : ndarray
        Log-odds or margins of the first response; 0 predicts neither.
    signs : ndarray of the same shape, or one that broadcasts to it, optional
        +1 where the first response is preferred, −1 where the second is; None: the first in every row.

    Returns
    -------
    right : ndarray of float64
    """
    margins = log_odds if signs is None else log_odds * signs
    right: np.ndarray = (margins > 0) + 0.5 * (margins == 0)
    return right
