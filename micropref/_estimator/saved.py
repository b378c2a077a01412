"""What a saved model may hold: kinds of entries and shapes of tensors, checked before anything is made of them.

A checksum finds accidents; a person who alters a model can compute it anew. So nothing that is read is believed: every
class lists its attributes with their kinds and its tensors with their shapes, and all else is a `ModelFileError` that
names the entry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from micropref._engine.gates import Gate
from micropref._estimator.errors import ModelFileError

__all__ = [
    "COUNT",
    "FLAG",
    "INFINITE",
    "REAL",
    "REALS",
    "RECORDS",
    "TEXT",
    "Kind",
    "check_covariances",
    "check_entries",
    "check_gate",
    "check_keys",
    "check_parameters",
    "check_tensors",
    "checking",
    "list_of",
    "listed",
    "one_of",
    "record",
    "refused",
    "restored_classes",
    "restored_names",
]

Value = TypeVar("Value")

# Beyond 2**53 floats skip integers.
_LARGEST_COUNT = 1 << 53
_LONGEST_TEXT = 1 << 16
# Products of a few of them and of features stay inside double precision.
_LARGEST_REAL = 1e250
_LABEL_TYPES = re.compile(r"\|b1|\|O|[<>|=][iu][1248]|[<>=]f[248]|[<>=]U[0-9]{1,5}")
_DEVICES = re.compile(r"[a-z]{1,20}(:[0-9]{1,4})?")
_SHOWN = 60
# Of a covariance in single precision, against its largest entry.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Kind:
    """A kind of JSON values: what it is called, and whether a value is of it."""

    words: str
    accepts: Callable[[Any], bool]


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST_REAL <= value <= _LARGEST_REAL


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_COUNT


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= _LONGEST_TEXT


REAL = Kind("a finite number", _is_real)
INFINITE = Kind("a number, which may be infinite", lambda value: _is_real(value) or value in (math.inf, -math.inf))
COUNT = Kind("an integer from 0 to 2**53", _is_count)
FLAG = Kind("true or false", lambda value: type(value) is bool)
TEXT = Kind(f"a text of at most {_LONGEST_TEXT} characters", _is_text)


def listed(**entries: Value) -> Mapping[str, Value]:
    """A list by name that a class can have: nothing changes it."""
    return MappingProxyType(entries)


def one_of(*values: str) -> Kind:
    """One of these texts."""
    return Kind(f"one of {', '.join(map(repr, values))}", lambda value: type(value) is str and value in values)


def list_of(kind: Kind, length: int | None = None) -> Kind:
    """A list of values of a kind."""
    many = "" if length is None else f"{length} values, each "
    return Kind(
        f"a list of {many}{kind.words}",
        lambda value: (
            type(value) is list and (length is None or len(value) == length) and all(map(kind.accepts, value))
        ),
    )


def record(kinds: Mapping[str, Kind], *, optional: Collection[str] = ()) -> Kind:
    """An object with exactly these entries; those that are optional may be null."""
    return Kind(
        f"an object with {', '.join(kinds)}",
        lambda value: (
            type(value) is dict
            and value.keys() == kinds.keys()
            and all(
                kind.accepts(value[name]) or (name in optional and value[name] is None) for name, kind in kinds.items()
            )
        ),
    )


REALS = list_of(REAL)
#: What was tried, and how it went: objects of numbers.
RECORDS = Kind(
    "a list of objects of numbers",
    lambda value: (
        type(value) is list
        and all(type(each) is dict for each in value)
        and all(one is None or type(one) is bool or INFINITE.accepts(one) for each in value for one in each.values())
    ),
)


def refused(where: str, expected: str, value: Any) -> ModelFileError:
    """The error for an entry of a saved model."""
    shown = repr(value) if type(value) in (bool, int, float, type(None)) else f"{_cut(value)}"
    return ModelFileError(f"{where}: expected {expected} in a saved model, got {shown}")


def _cut(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    return f"{'an array' if isinstance(value, np.ndarray) else 'an object' if isinstance(value, dict) else 'a list'}"


# ------------------------------------------------------------------------------------------------------------- entries


def check_keys(where: str, found: Any, needed: Collection[str], allowed: Collection[str] = ()) -> None:
    """A ModelFileError unless an object has all entries that are needed, and none besides that is not allowed."""
    if type(found) is not dict:
        raise refused(where, "an object", found)
    for name in needed:
        if name not in found:
            raise ModelFileError(f"{where}: expected an entry {name!r} in a saved model, got none")
    known = {*needed, *allowed}
    for name in found:
        if name not in known:
            raise ModelFileError(
                f"{where}: expected no other entries than {', '.join(sorted(known))} in a saved model, got {_cut(name)}"
            )


def check_entries(where: str, found: Any, kinds: Mapping[str, Kind]) -> None:
    """A ModelFileError for an entry that is not listed, or not of its kind; an entry may be missing or null."""
    check_keys(where, found, (), kinds)
    for name, value in found.items():
        if value is not None and not kinds[name].accepts(value):
            raise refused(f"{where}.{name}", kinds[name].words, value)


def check_parameters(where: str, found: Any, cls: type) -> None:
    """A ModelFileError unless these are parameters of a class, of kinds that JSON has for them.

    Their ranges are those of the class's own check.
    """
    known = signature(cls).parameters
    check_keys(where, found, (), known)
    for name, value in found.items():
        flag = type(known[name].default) is bool
        if name == "device":
            fits = value is None or (type(value) is str and _DEVICES.fullmatch(value) is not None)
        elif name == "random_state":
            fits = value is None or type(value) is int
        elif type(value) is list:
            fits = len(value) <= 2 and all(type(each) in (int, str) for each in value)
        else:
            fits = value is None or type(value) in (bool, int, float) or _is_text(value)
            fits = fits and (type(value) is bool or not flag)
        if not fits:
            raise refused(f"{where}.{name}", f"a value of the parameter of {cls.__name__}", value)


@contextmanager
def checking(where: str) -> Iterator[None]:
    """Turn the errors of checks that have no file to name into a ModelFileError that names the place."""
    try:
        yield
    except ModelFileError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else str(error)[:500]
        raise ModelFileError(f"{where}: expected a model as it was saved, got another one: {what}") from error


def restored_classes(found: Any) -> NDArray[Any]:
    """The two labels of a description."""
    check_keys("classes", found, ("dtype", "values"))
    dtype, values = found["dtype"], found["values"]
    if type(dtype) is not str or not _LABEL_TYPES.fullmatch(dtype):
        raise refused("classes.dtype", "a type of labels: booleans, numbers, or text of less than 10**5", dtype)
    scalars = type(values) is list and len(values) == 2 and values[0] != values[1]
    if not scalars or not all(type(one) in (bool, int, float) or _is_text(one) for one in values):
        raise refused("classes.values", "two labels", values)
    try:
        classes = np.array(values, dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelFileError(f"classes: expected two labels of the type {dtype} in a saved model: {error}") from None
    if classes.tolist() != values or list(map(type, classes.tolist())) != list(map(type, values)):
        raise refused("classes.values", f"labels of the type {dtype}", values)
    return classes


def restored_names(found: Any, n_features: int) -> NDArray[Any]:
    """The names of the columns of X."""
    if type(found) is not list or len(found) != n_features or not all(map(_is_text, found)):
        raise refused("feature_names", f"a list of {n_features} texts", found)
    return np.array(found, dtype=object)


# ------------------------------------------------------------------------------------------------------------- tensors


def check_tensors(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """A ModelFileError unless tensors have these shapes, in which None is any length."""
    for name, shape in shapes.items():
        if name not in arrays:
            raise ModelFileError(f"{name}: expected a tensor of this name in a saved model, got none")
        found = arrays[name].shape
        if len(found) != len(shape) or any(a is not None and a != b for a, b in zip(shape, found, strict=True)):
            words = ", ".join("any" if length is None else str(length) for length in shape)
            raise ModelFileError(f"{name}: expected a tensor of shape ({words}) in a saved model, got one of {found}")


def check_gate(where: str, parameters: list[NDArray[Any]], gate: Gate) -> None:
    """A ModelFileError unless these are parameters of the gate."""
    found = tuple(each.shape for each in parameters)
    if found != gate.shapes:
        raise ModelFileError(f"{where}: expected parameters of shapes {gate.shapes} in a saved model, got {found}")


def check_covariances(where: str, covariances: NDArray[Any]) -> None:
    """A ModelFileError unless all matrices (…, q, q) are covariances, but for rounding in single precision."""
    if not covariances.size:
        return
    size = np.abs(covariances).max(axis=(-1, -2), keepdims=True)
    scaled = np.divide(covariances, size, out=np.zeros(covariances.shape), where=size > 0)
    symmetric = np.abs(scaled - scaled.swapaxes(-1, -2)).max() <= _ROUNDING
    if not symmetric or np.linalg.eigvalsh(scaled).min() < -_ROUNDING:
        raise ModelFileError(f"{where}: expected covariances in a saved model, got a matrix that is none")
