"""What a user id is: the one rule for arrays, tables, files, saved models and servers."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Hashable
from decimal import Decimal
from numbers import Integral, Number, Rational
from typing import Any

import numpy as np

from micropref._arrays.backend import is_torch

__all__ = [
    "MAX_DIGITS",
    "NO_USER_CELLS",
    "float_limit",
    "integer_of_float",
    "restored_id",
    "storable_id",
    "text_id",
    "user_id",
    "user_of",
]

#: Digits of the longest integer: Python refuses to convert longer ones to and from text.
MAX_DIGITS = 4300

#: How tools write a missing value into a cell of CSV: pandas' defaults, R, databases.
NO_USER_CELLS = frozenset(
    (
        *("NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NULL", "null", "None", "NONE", "none", "\\N", "NaT"),
        *("NaN", "NAN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)

_INTEGER = re.compile("0|-?[1-9][0-9]*")
_INTEGER_OF_FLOATS = re.compile(r"(-?[0-9]|-?[1-9][0-9]*)\.0+")
# How tools write large floats: 1.2345678901234568e+18, and 1e+05 for 100 000.
_FLOAT_WITH_EXPONENT = re.compile(r"-?[0-9](\.[0-9]+)?[eE]\+[0-9]+")
_LONGEST = 10**MAX_DIGITS
_BITS_TO_TEST = _LONGEST.bit_length() - 1
# Scalars of NumPy that are no numbers, although they have the methods of one.
_NUMPY_IDS = (np.datetime64, np.void, np.bytes_)
_EXPECTED = "expected an integer, a string or a tuple of these as an id"


def user_id(value: object) -> Hashable | None:
    """The id under which a user is known, or None where the value says that there is no user.

    - None, NaN, NaT, ``pandas.NA``, blank text, -1 and ``"-1"`` are no user.
    - Integers of every type are that integer, and so are floats without a fraction and strings that are canonical
      integers: 12, 12.0 and ``"12"`` are one user.
    - Other strings are themselves: ``"12.0"``, ``"012"`` and ``" 12"`` are three users.
    - Tuples hold ids by the same rule, except that -1 in them is -1.
    - Other hashable values, such as UUIDs, are themselves; they cannot be saved.

    Parameters
    ----------
    value : object
        An id in whatever type it came.

    Returns
    -------
    id : int, str, tuple or other hashable, or None

    Raises
    ------
    ValueError
        For booleans (True would be 1), for fractions and infinities, for floats so large that two ids may have become
        one (2**53 and above, 2**24 in single and 2**11 in half precision), for integers of more than 4 300 digits, for
        tuples that are empty or in which a value is missing, and for values that cannot be hashed.
    """
    found = _read(value)
    return None if type(found) is int and found == -1 else found


def user_of(value: object, name: str) -> Hashable | None:
    """`user_id` of an argument, by whose name errors begin."""
    try:
        return user_id(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def text_id(cell: str) -> Hashable | None:
    """The id in a cell of a source without types, such as CSV; None where it says that there is no user.

    The rule is `user_id`'s, and in addition markers of missing values (``NA``, ``N/A``, ``<NA>``, ``null``, ``nan`` …)
    are no user, and digits followed by ``.0`` are the integer, because tools write a column of integers with gaps as
    floats.

    Parameters
    ----------
    cell : str

    Returns
    -------
    id : int, str or None

    Raises
    ------
    ValueError
        As `user_id`; and for floats of 2**53 and above, such as ``1.2345678901234568e+18``.
    """
    if cell in NO_USER_CELLS:
        return None
    digits = integer_of_float(cell)
    if digits is not None:
        number = int(_checked_digits(digits))
        if abs(number) >= float_limit(np.float64):
            raise _too_large(cell, float_limit(np.float64))
        return None if number == -1 else number
    if _FLOAT_WITH_EXPONENT.fullmatch(cell):
        number_of_float = float(cell)
        if abs(number_of_float) >= float_limit(np.float64):
            raise _too_large(cell, float_limit(np.float64))
        return user_id(number_of_float)
    return user_id(cell)


def integer_of_float(text: str) -> str | None:
    """The integer in text that a tool wrote as a float: ``"12"`` of ``"12.0"``, else None.

    Integers with leading zeros are none, since no float is written like that.

    Parameters
    ----------
    text : str

    Returns
    -------
    digits : str or None
    """
    match = _INTEGER_OF_FLOATS.fullmatch(text)
    return match[1] if match else None


def storable_id(id: Hashable) -> int | str | list[Any]:
    """What a saved model holds for an id: JSON that `restored_id` turns into the same id.

    Parameters
    ----------
    id : hashable
        As `user_id` returned it.

    Returns
    -------
    int, str or list

    Raises
    ------
    TypeError
        If it is none of an integer, a string and a tuple of these.
    """
    if isinstance(id, str):
        return str.__str__(id)
    if isinstance(id, Integral) and not isinstance(id, bool | np.bool_ | np.timedelta64):
        return int(id)
    if isinstance(id, tuple):
        return [storable_id(part) for part in id]
    raise TypeError(f"{_EXPECTED} that is saved, got {_shown(id)}: other ids live in memory only")


def restored_id(json_value: object) -> Hashable:
    """The id that `storable_id` wrote. Strings stay strings.

    Parameters
    ----------
    json_value : int, str or list
        As JSON holds it.

    Returns
    -------
    id : int, str or tuple

    Raises
    ------
    ValueError
        If it is no such value.
    """
    if isinstance(json_value, str) or (isinstance(json_value, int) and not isinstance(json_value, bool)):
        return json_value
    if isinstance(json_value, list) and json_value:
        return tuple(restored_id(part) for part in json_value)
    raise ValueError(f"expected a saved id (an integer, a string or a list of these), got {_shown(json_value)}")


def float_limit(dtype: Any) -> int:
    """The smallest float of a type beside which lies an integer that the type cannot hold: 2**53 in double precision.

    Parameters
    ----------
    dtype : floating NumPy dtype

    Returns
    -------
    int
    """
    exponent = int(np.finfo(dtype).nmant) + 1
    return 1 << exponent


def _read(value: object) -> Hashable | None:
    """The id with -1 as an integer."""
    if type(value) is str:
        return _text(value)
    if type(value) is int:
        return _integer(value)
    if value is None:
        return None
    if isinstance(value, str):  # numpy.str_, members of a string enumeration
        return _text(str.__str__(value))
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"{_EXPECTED}, got {value!r}: as an id it would be {int(value)}")
    if isinstance(value, tuple):
        return _tuple(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, float | np.floating):
        return _float(value)
    if isinstance(value, Rational) and not isinstance(value, np.timedelta64):
        if value.denominator != 1:
            raise _refused(value)
        return _integer(int(value.numerator))
    return _other(value)


def _text(text: str) -> Hashable | None:
    if not text or text.isspace():
        return None
    return int(_checked_digits(text)) if _INTEGER.fullmatch(text) else text


def _checked_digits(digits: str) -> str:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"expected an integer of at most {MAX_DIGITS} digits as an id, got {_shown(digits)}")
    return digits


def _integer(value: int) -> int:
    if value.bit_length() > _BITS_TO_TEST and abs(value) >= _LONGEST:
        raise ValueError(
            f"expected an integer of at most {MAX_DIGITS} digits as an id, got one of {value.bit_length()} bits"
        )
    return value


def _float(value: Any) -> int | None:
    if value != value:
        return None
    if not np.isfinite(value) or value % 1 != 0:
        raise _refused(value)
    limit = float_limit(type(value) if isinstance(value, np.floating) else np.float64)
    if abs(value) >= limit:
        raise _too_large(value, limit)
    return int(value)


def _decimal(value: Decimal) -> int | None:
    if value.is_nan():
        return None
    if not value.is_finite() or (value and value.adjusted() < 0):
        raise _refused(value)
    # Asked before it is written out, which for 1E+999999999 would fill the memory.
    if value.adjusted() >= MAX_DIGITS:
        raise ValueError(f"expected an integer of at most {MAX_DIGITS} digits as an id, got {_shown(value)}")
    if value != int(value):
        raise _refused(value)
    return int(value)


def _tuple(values: tuple[Any, ...]) -> tuple[Hashable, ...]:
    parts = tuple(_read(value) for value in values)
    if not parts or None in parts:
        raise ValueError(f"expected a tuple of integers and strings as an id, none missing, got {_shown(values)}")
    return parts


def _other(value: Any) -> Hashable | None:
    if is_torch(value):
        if value.ndim == 0 and not value.dtype.is_floating_point:
            return _read(value.item())
        raise _refused(value)
    if hasattr(value, "as_py"):  # scalars of Arrow, of which two that say the same are different keys
        return _read(value.as_py())
    try:
        hash(value)
        if _is_missing(value):
            return None
    except (TypeError, ValueError):
        raise _refused(value) from None
    # Numbers of other kinds are equal to integers, and would meet them as keys.
    if isinstance(value, Number) or (hasattr(type(value), "__float__") and not isinstance(value, _NUMPY_IDS)):
        raise _refused(value)
    return value  # type: ignore[no-any-return]


def _is_missing(value: Any) -> bool:
    """NaN and NaT of any type are not equal to themselves; ``pandas.NA`` does not know."""
    return type(value).__name__ == "NAType" or bool(value != value)


def _refused(value: object) -> ValueError:
    return ValueError(f"{_EXPECTED}, got {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, np.floating):
        return str(value)
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer in it that is too long to be written
        return f"a {type(value).__name__}"


def _too_large(value: object, limit: int) -> ValueError:
    return ValueError(
        f"expected an id below 2**{int(math.log2(limit))} if ids are floats, got {value}: from there on, two ids "
        "may have been rounded to the same float; pass ids as integers or strings"
    )
