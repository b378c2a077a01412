"""Classes that tables of Hugging Face keep as numbers, by their names: a number alone may reverse a preference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["ClassNames"]


class ClassNames:
    """Names of the classes of every column that has some.

    Parameters
    ----------
    names : mapping of str to sequence of str
        By column; a cell i stands for the i-th name, and −1 for none.
    """

    def __init__(self, names: Mapping[str, Sequence[str]]):
        self.names = names

    @classmethod
    def of_features(cls, features: Mapping[str, Any] | None) -> ClassNames:
        """The columns that are a `ClassLabel` among the features of a data set of Hugging Face."""
        known = {} if features is None else {name: getattr(one, "names", None) for name, one in features.items()}
        return cls({name: names for name, names in known.items() if isinstance(names, list | tuple)})

    @classmethod
    def of_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> ClassNames:
        """The same from the metadata of a schema, in which `datasets` writes its features."""
        try:
            features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
            return cls(
                {n: f["names"] for n, f in features.items() if f.get("_type") == "ClassLabel" and f.get("names")}
            )
        except (KeyError, TypeError, ValueError, AttributeError):  # none, or those of another program
            return cls({})

    def apply(self, column: str, cells: Iterable[Any]) -> list[Any]:
        """The cells of a column with names in place of numbers."""
        names = self.names.get(column)
        return list(cells) if names is None else [_named(cell, names) for cell in cells]


def _named(cell: Any, names: Sequence[str]) -> Any:
    if not isinstance(cell, int) or isinstance(cell, bool) or cell >= len(names) or cell < -1:
        return cell
    return None if cell == -1 else names[cell]
