"""Properties that are computed once for each object, without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["cached_property"]

Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """Like `functools.cached_property`, which up to Python 3.11 computes under one lock for all objects of a class.

    A child that is forked while a thread computes would wait for that lock for ever. Here, two threads that ask first
    at the same time both compute, and both see equal values.
    """

    def __init__(self, compute: Callable[[Any], Value]):
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        # Later look-ups find the value and never come here.
        value: Value = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
