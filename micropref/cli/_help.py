"""Help of the commands: a flag takes no value, and none is shown beside it; 80 columns are enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Application"]


class _FlagsWithoutValue:
    """Shows ``--json`` where typer shows ``--json <bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
                if not isinstance(parameter.process_value, _FlagNotGiven):
                    parameter.process_value = _FlagNotGiven(parameter)
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Without the column of negative forms, which takes the width of the texts; the text of the option names it."""
        hidden = {parameter: parameter.secondary_opts for parameter in self.get_params(ctx)}
        try:
            for parameter in hidden:
                parameter.secondary_opts = []
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            for parameter, negative in hidden.items():
                parameter.secondary_opts = negative


class _FlagNotGiven:
    """Processes a flag as ever where it is given, and where it is not without pydantic, whose import takes 0.1 s.

    The help of a command needs nothing but the flags of the group, of which none is given.
    """

    def __init__(self, flag: Any):
        self._flag, self._process = flag, flag.process_value

    def __call__(self, ctx: Any, value: Any) -> Any:
        if value not in (None, False) or self._flag.required:
            return self._process(ctx, value)
        return value if self._flag.callback is None else self._flag.callback(ctx, self._flag, value)


class _Command(_FlagsWithoutValue, TyperCommand):
    pass


class _Group(_FlagsWithoutValue, TyperGroup):
    pass


class Application(typer.Typer):
    """A typer application with that help."""

    def __init__(self, **settings: Any):
        super().__init__(cls=_Group, **settings)

    def command(self, *arguments: Any, **settings: Any) -> Callable[..., Any]:
        """As that of typer."""
        return super().command(*arguments, **{"cls": _Command, **settings})
