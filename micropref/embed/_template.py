"""The text that stands for a response."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """A text with ``{response}``, and ``{prompt}`` where it shall have one; a ValueError for any other.

    The fields have no format: ``{response:>1000000000}`` would fill the memory.

    Attributes
    ----------
    text : str
    """

    text: str

    def __post_init__(self) -> None:
        found = [part[1:] for part in string.Formatter().parse(self.text) if part[1] is not None]
        fields = [field for field, _, _ in found]
        plain = all(not form and conversion is None for _, form, conversion in found)
        if "response" not in fields or not set(fields) <= {"prompt", "response"} or not plain:
            raise ValueError(
                f"expected a template with {{response}}, possibly with {{prompt}} and nothing else, got {self.text!r}"
            )

    def fill(self, prompts: Sequence[str] | None, responses: Sequence[str]) -> list[str]:
        """The template with each prompt and response.

        Parameters
        ----------
        prompts : sequence of n str, or None
            Needed only if the template has ``{prompt}``.
        responses : sequence of n str

        Returns
        -------
        texts : list of n str
        """
        if self.text == "{response}":
            return list(responses)
        if prompts is None:
            if "{prompt}" in self.text:
                raise ValueError(f"expected a prompt for each response, for the template {self.text!r}, got no prompts")
            prompts = [""] * len(responses)
        pairs = zip(prompts, responses, strict=True)
        return [self.text.format(prompt=prompt, response=response) for prompt, response in pairs]
