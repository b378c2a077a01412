"""Models of texts without one user, or without all of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from micropref._estimator.fitting import keep_parameters
from micropref.router import ContextRouter

__all__ = ["without_user", "without_users"]


def without_user(router: ContextRouter | None, mixture: Any, user: Hashable) -> ContextRouter:
    """A router that knows all users but this one; a KeyError where it does not know this one.

    Its parameter `mixture` is the model's own first stage: an estimator that was passed may remember annotators.
    """
    if router is None:
        raise KeyError(f"expected a user who has voted, got {user!r}: this model has taken in no votes yet")
    router = router._forked().forget(user)
    router.mixture = mixture
    keep_parameters(router)
    return router


def without_users(router: ContextRouter) -> ContextRouter:
    """A router that applies heads to contexts as this one does, and knows no user."""
    router = router._forked()
    router._know_users(router.history_.scatter)
    return router
