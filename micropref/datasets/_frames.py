"""DataFrames of pandas, Polars and Arrow as plain columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from micropref.datasets._class_names import ClassNames

# By the names that NumPy, narwhals, Arrow and Hugging Face give them.
_NARROW = {"float32": np.float32, "float": np.float32, "float16": np.float16, "halffloat": np.float16}


def is_frame(source: object) -> bool:
    """Whether an object is a table in memory of pandas, Polars, Arrow or another library that narwhals knows.

    Nothing is imported for the answer but narwhals: what was not imported cannot have made the object.
    """
    import narwhals.stable.v2 as nw

    return bool(nw.dependencies.is_into_dataframe(source))


def columns_of_frame(frame: Any) -> dict[str, list[Any]]:
    """The cells of every column as Python objects: None where one is missing, text where it is categorical.

    Parameters
    ----------
    frame : DataFrame or Table for which `is_frame` is true

    Returns
    -------
    columns : dict of str to list of n cells

    Raises
    ------
    ValueError
        If two columns have one name.
    """
    import narwhals.stable.v2 as nw
    from narwhals.exceptions import DuplicateError

    names = [str(name) for name in getattr(frame, "column_names", frame.columns)]  # Arrow's `columns` are the cells
    try:
        columns = nw.from_native(frame, eager_only=True)
    except DuplicateError:
        columns = None
    if columns is None or len(set(names)) < len(names):
        raise ValueError(
            f"the {type(frame).__name__}: expected each column name once, got {', '.join(map(repr, names))}"
        )
    classes = ClassNames.of_metadata(getattr(getattr(frame, "schema", None), "metadata", None))  # Arrow's
    return {
        name: classes.apply(name, _cells(column)) for name, column in zip(names, columns.iter_columns(), strict=True)
    }


def narrow_floats(cells: list[Any], dtype: str) -> list[Any]:
    """Cells of a column of floats that are narrower than Python's, in their own type: it decides which ids are safe."""
    narrow = {"float32": np.float32, "float": np.float32, "float16": np.float16, "halffloat": np.float16}.get(
        dtype.lower()
    )
    return cells if narrow is None else [None if cell is None else narrow(cell) for cell in cells]


def _cells(column: Any) -> list[Any]:
    # pandas tells NaN, NaT and NA apart and calls all of them null; in Polars and Arrow a NaN is no null.
    nulls = column.is_null().to_list()
    cells = [
        None if is_null or (isinstance(cell, float) and cell != cell) else cell
        for cell, is_null in zip(column.to_list(), nulls, strict=True)
    ]
    return narrow_floats(cells, str(column.dtype))
