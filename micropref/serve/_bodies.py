"""Bodies of requests: JSON that becomes a dataclass, or a sentence about what was expected."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache
from typing import Any

from micropref._rows.ids import storable_id, user_of
from micropref._support.optional import require
from micropref.datasets._text import is_blank
from micropref.serve._service import BadInputError
from micropref.serve._settings import Limits

__all__ = ["BodyReader", "path_user"]

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dataclass_type": "an object",
    "missing": "a value",
}
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


class BodyReader:
    """Reads bodies and checks what no type says: lengths, blank responses, ids.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits):
        self.limits = limits

    def read(self, body: bytes, kind: Any) -> Any:
        """The body as an object of this dataclass.

        Raises
        ------
        BadInputError
        """
        adapter, errors = _adapter(kind)
        try:
            return adapter(body)
        except errors as error:
            raise BadInputError(_sentence(error.errors(include_url=False)[0])) from None

    def texts(self, name: str, texts: Iterable[str], *, blank: bool = True) -> None:
        """Refuse a text that is too long, or blank where it must not be."""
        for i, text in enumerate(texts):
            if len(text) > self.limits.text:
                raise BadInputError(f"{name}[{i}]: expected at most {self.limits.text} characters, got {len(text)}")
            if not blank and is_blank(text):
                raise BadInputError(f"{name}[{i}]: expected text, got a blank response")

    def count(self, name: str, n: int, least: int = 1) -> None:
        """Refuse lists that are too short or too long."""
        if not least <= n <= self.limits.items:
            raise BadInputError(f"{name}: expected from {least} to {self.limits.items} of them, got {n}")

    def pair(self, first: str, second: str, names: tuple[str, str]) -> None:
        """Refuse a comparison of a text with itself."""
        if first == second:
            raise BadInputError(f"{names[1]}: expected another text than {names[0]}, got the same")

    def key(self, key: str | None, new: Callable[[], str]) -> str:
        """A key, or a new one."""
        if key is None:
            return new()
        if not 1 <= len(key) <= self.limits.id:
            raise BadInputError(f"key: expected from 1 to {self.limits.id} characters, got {len(key)}")
        return key

    def user(self, value: Any) -> Hashable | None:
        """The id of a user, None where the value says that there is none."""
        try:
            user = user_of(value, "user")
        except ValueError as error:
            raise BadInputError(str(error)) from None
        if isinstance(user, int) and user.bit_length() > 4 * self.limits.id:
            raise BadInputError(f"user: expected an integer of at most {4 * self.limits.id} bits, got a longer one")
        if isinstance(user, str) and len(user) > self.limits.id:
            raise BadInputError(f"user: expected at most {self.limits.id} characters, got {len(user)}")
        return user

    def known_user(self, value: Any) -> Hashable:
        """The id of a user who must be one."""
        user = self.user(value)
        if user is None:
            raise BadInputError("user: expected an id, got a value that stands for an unknown user")
        return user


def path_user(user: Hashable) -> str | int:
    """An id as JSON holds it."""
    found = storable_id(user)
    assert not isinstance(found, list)
    return found


@cache
def _adapter(kind: Any) -> tuple[Callable[[bytes], Any], Any]:
    pydantic = require("pydantic", "Serving a model")
    return pydantic.TypeAdapter(kind).validate_json, pydantic.ValidationError


def _sentence(error: Mapping[str, Any]) -> str:
    """One fault in the words of this library, without the value, which may be long."""
    place = ".".join(map(str, error["loc"]))
    kind, value = error["type"], error.get("input")
    if kind == "json_invalid":
        return f"expected JSON, got text that is none: {error.get('ctx', {}).get('error', 'it cannot be read')}"
    if kind == "unexpected_keyword_argument":
        return f"{place[:100]}: expected a field that /docs lists, got this one"
    if error["loc"] and error["loc"][-1] in ("str", "int", "float"):
        place, expected = ".".join(map(str, error["loc"][:-1])), "a string or an integer"
    else:
        expected = _EXPECTED.get(kind, str(error["msg"]))
    got = "none" if kind == "missing" else _KINDS.get(type(value), "something else")
    return f"{place + ': ' if place else ''}expected {expected}, got {got}"
