"""TextModel: an encoder with the estimators behind it, and which columns of X these read."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from micropref._estimator.gated_heads import GatedHeads
from micropref._reward.routing import parts_read
from micropref._reward.stated import with_blank_contexts
from micropref.datasets.table import PreferenceTable
from micropref.embed import PairEncoder
from micropref.router import ContextRouter

__all__ = ["TextModel"]


class TextModel:
    """What every part of a `PreferenceModel` builds on: its three members, and comparisons as their rows of X."""

    encoder: PairEncoder
    mixture: GatedHeads
    router: ContextRouter | None

    @property
    def reads_prompts(self) -> bool:
        """Whether rewards depend on the prompt: by the template, the weights of the heads, or interactions.

        Returns
        -------
        reads_prompts : bool
        """
        return self.encoder.reads_prompts_ or "prompt" in self._parts()

    def _parts_of_mixture(self) -> tuple[str, ...]:
        return ("prompt",) if self.mixture.n_context_features_ else ()

    def _new_router(self, parameters: dict[str, Any]) -> ContextRouter:
        settings = {} if self.router is None else self.router.get_params(deep=False)
        return ContextRouter(**{**settings, **parameters, "mixture": self.mixture})

    def _parts(self) -> tuple[str, ...]:
        """Context parts that the weights depend on."""
        return self._parts_of_mixture() if self.router is None else parts_read(self.router, self.encoder)

    def _pairs(self, table: PreferenceTable, parts: tuple[str, ...]) -> NDArray[Any]:
        return self.encoder.encode_pairs(with_blank_contexts(table), parts)
