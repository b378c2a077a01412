"""Rules of the house that a reviewer would otherwise repeat: sizes, words, and what only one room may do.

Every rule is one test whose message lists all offenders as ``file:line: what``, the worst first.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import pytest
from _package import calls, functions, imports, is_public, modules, part_of, place, source, strings, tree

MAX_LINES, MAX_POSITIONAL, MAX_FILE = 60, 7, 500
# One function keeps one loop, so that nothing leaves the registers; and each file is compiled as one.
COMPILED = re.compile(r"micropref\.kernels\._(numba|triton)")


def refuse(rule: str, offenders: Iterable[str]) -> None:
    """Fail with all offenders."""
    listed = list(offenders)
    if listed:
        pytest.fail(f"{rule}; {len(listed)} to change:\n" + "\n".join(listed), pytrace=False)


# ------------------------------------------------------------------------------------------------------------- sizes


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, without the docstring's."""
    docstring = 0
    if ast.get_docstring(function) is not None:
        docstring = (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters that may be passed by position, self and cls apart."""
    names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether typer calls it with what the command line says."""
    return any(re.search(r"\.(command|callback)\(", ast.unparse(one)) for one in function.decorator_list)


def measured(measure) -> list[tuple[int, str]]:
    """A measure of every function, the largest first; kernels and the functions of commands are not measured."""
    found = []
    for module in modules():
        if part_of(module) != "kernels":
            found += [
                (measure(one), f"{place(module, one.lineno)}: {one.name}")
                for one in functions(module)
                if not (part_of(module) == "cli" and is_command(one))
            ]
    return sorted(found, reverse=True)


def test_no_function_is_too_long():
    too_long = [f"{where} has {n} lines" for n, where in measured(own_lines) if n > MAX_LINES]
    refuse(f"at most {MAX_LINES} lines a function, without its docstring", too_long)


def test_no_function_has_too_many_positional_parameters():
    too_many = [f"{where} has {n}" for n, where in measured(positional) if n > MAX_POSITIONAL]
    refuse(f"at most {MAX_POSITIONAL} parameters that are not keyword-only", too_many)


def test_no_file_is_too_long():
    sizes = sorted(((source(m).count("\n"), m) for m in modules() if not COMPILED.match(m)), reverse=True)
    refuse(f"at most {MAX_FILE} lines a file", (f"{place(m, 1)}: {n} lines" for n, m in sizes if n > MAX_FILE))


def test_the_measures_can_fail():
    code = 'def f(self, a, b, /, c, *, d):\n    """One.\n\n    Two.\n    """\n    return 1\n'
    function = ast.parse(code).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert (own_lines(function), positional(function)) == (2, 3)
    assert not is_command(function)
    command = ast.parse("@app.command()\ndef f(a): ...").body[0]
    assert isinstance(command, ast.FunctionDef)
    assert is_command(command)
    refuse("rule", [])
    with pytest.raises(pytest.fail.Exception, match=r"rule; 1 to change:\na\.py:1: f"):
        refuse("rule", ["a.py:1: f"])


# ------------------------------------------------------------------------------------------------------------- words

VAGUE_PEOPLE = re.compile(r"\b(some|no|every|any)body('s)?\b|\bwhoever\b", re.IGNORECASE)
OLD_ERRORS = re.compile(r"\bfound\b.*\bwanted\b|, wanted\b", re.DOTALL)
# "Effective dimension" is a term of statistics.
VAGUE_NAMES = re.compile(
    r"(^|_)(told|effective(?!_dimension)|material|whole|arranged)(_|$)|Told|Effective|Material|Whole|Arranged"
)


def test_people_have_names():
    """A user is served, an annotator taught, a population is all annotators."""
    refuse(
        "user, annotator or population, not somebody, nobody, everybody, anybody, whoever",
        (
            f"{place(module, number)}: {line.strip()}"
            for module in modules()
            for number, line in enumerate(source(module).splitlines(), start=1)
            if VAGUE_PEOPLE.search(line)
        ),
    )


def test_errors_say_what_was_expected_and_what_came():
    refuse(
        'errors read "expected X, got Y", not "found Y, wanted X"',
        (
            f"{place(module, line)}: {' '.join(text.split())[:100]}"
            for module in modules()
            for line, text in strings(module)
            if OLD_ERRORS.search(text)
        ),
    )


# Raised as Python or scikit-learn word them, or, of a missing fit or package, as an instruction.
OWN_WORDING = {"AttributeError", "RankError", "ImportError", "NotFittedError"}
# What scikit-learn's checks of an estimator look for.
SCIKIT_LEARN = re.compile(
    r"^(Found (input variables|tensor of shape)|X has {} features, but|Sample weights must be|sample_weight\.shape ==)"
)
# Variables that hold a part of a message, or another message.
WORD = re.compile(r"_?(expected|got)", re.IGNORECASE)
PASSED_ON = re.compile(r"(^|[._])(error|faults?|place)\b")


def raised(module: str) -> list[tuple[int, str, bool]]:
    """Line and text of every message built in a ``raise ...Error(...)``, and whether it passes on another message.

    A fill is {} in the text, but {expected} or {got} if it has that name.
    """
    found = []
    for node in ast.walk(tree(module)):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        name = ast.unparse(node.exc.func).rpartition(".")[2]
        if not name.endswith("Error") or name in OWN_WORDING or not node.exc.args:
            continue
        message = node.exc.args[0]
        if isinstance(message, ast.Constant):
            found.append((node.lineno, str(message.value), False))
        elif isinstance(message, ast.JoinedStr):
            parts = [ast.unparse(one.value) if isinstance(one, ast.FormattedValue) else one for one in message.values]
            text = "".join(
                str(one.value) if isinstance(one, ast.Constant) else f"{{{one if WORD.fullmatch(one) else ''}}}"
                for one in parts
            )
            found.append((node.lineno, text, any(isinstance(one, str) and PASSED_ON.search(one) for one in parts)))
    return found


def test_every_error_says_what_was_expected_and_what_came():
    """A message that passes on another one only adds its place."""
    refuse(
        'errors read "PLACE: expected X, got Y"',
        (
            f"{place(module, line)}: {' '.join(text.split())[:100]}"
            for module in modules()
            for line, text, passes_on in raised(module)
            if not (passes_on or SCIKIT_LEARN.search(text))
            and not (re.search("expected", text, re.IGNORECASE) and re.search(r"\bgot\b", text))
        ),
    )


def test_messages_can_be_found():
    assert SCIKIT_LEARN.search("Sample weights must be 1D array or scalar")
    assert PASSED_ON.search("record.fault")
    assert PASSED_ON.search("error")
    assert not PASSED_ON.search("row")
    texts = [text for _, text, _ in raised("micropref._rows.ranges")]
    assert any("{got}" in text and text.startswith("expected {}") for text in texts), texts


def test_names_say_something():
    found = []
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = node.name
            elif isinstance(node, ast.arg):
                name = node.arg
            else:
                continue
            if VAGUE_NAMES.search(name):
                found.append(f"{place(module, node.lineno)}: {name}")
    refuse("a noun for a thing, a verb for an action; not told, effective, material, whole, arranged", found)


def test_the_words_can_be_found():
    assert VAGUE_PEOPLE.search("for somebody's vote")
    assert not VAGUE_PEOPLE.search("the body of a request")
    assert OLD_ERRORS.search("found {} in\nrow {}, wanted one of {}")
    assert not OLD_ERRORS.search("expected one of {}, got {}")
    assert VAGUE_NAMES.search("is_told")
    assert VAGUE_NAMES.search("WholeRows")
    assert not VAGUE_NAMES.search("wholesale")


# ------------------------------------------------------------------------------- what only one room may do or import

# scikit-learn's checks of what a user passes. Their results depend on options, so that two calls are two definitions.
CHECKS = {
    *("validate_data", "check_array", "check_X_y", "column_or_1d", "check_consistent_length", "_check_sample_weight"),
    *("type_of_target", "check_classification_targets", "_check_y"),
}
# Compilers and what only they need.
COMPILERS = {"triton", "numba"}
# What an estimator offers to those that save it.
SAVING = {"_export", "_restore"}


def test_rows_are_checked_in_one_room():
    refuse(
        "X, y, weights and groups are checked in micropref/_rows alone; use what it offers",
        (
            f"{place(module, call.lineno)}: {name}"
            for module in modules()
            if part_of(module) != "_rows"
            for call, name in calls(module)
            if name in CHECKS
        ),
    )


def test_the_checks_of_rows_are_defined_once():
    """Checks of X, labels, groups, ids and weights are in `_rows`; kernels stand below and check their own arrays."""
    names = re.compile(r"_?(check|read)_(matrix|labels?|groups?|sample_weights?|ids?)$|_?user_id$|_?checked_rows$")
    refuse(
        "one definition of a check, in micropref/_rows",
        (
            f"{place(module, one.lineno)}: {one.name}"
            for module in modules()
            if part_of(module) not in ("_rows", "kernels")
            for one in functions(module)
            if names.match(one.name)
        ),
    )


def test_only_kernels_compile():
    found = []
    for module in modules():
        if part_of(module) == "kernels":
            continue
        for name in imports(module, at_import_time=False):
            if name.split(".")[0] in COMPILERS:
                found.append(f"{place(module, 1)}: imports {name}")
        for call, name in calls(module):
            argument = call.args[0] if call.args else None
            is_name = isinstance(argument, ast.Constant) and str(argument.value).split(".")[0] in COMPILERS
            if name in ("require", "import_module") and is_name:
                found.append(f"{place(module, call.lineno)}: {ast.unparse(call)}")
    refuse("triton and numba are imported in micropref/kernels alone", found)


def test_saving_and_upkeep_touch_no_private_attribute():
    """Estimators export and restore their own state, so that a new attribute is no change elsewhere."""
    found = []
    for module in modules():
        if part_of(module) not in ("persistence", "_persistence", "heads"):
            continue
        for node in ast.walk(tree(module)):
            if not isinstance(node, ast.Attribute) or not re.match(r"_[^_]", node.attr) or node.attr in SAVING:
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(f"{place(module, node.lineno)}: {ast.unparse(node)}")
    refuse("no private attribute of another object", found)


def test_no_module_takes_a_private_name_of_another():
    """A helper that others need has no underscore, and lives in a module that has one."""
    found = []
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("micropref"):
                found += [
                    f"{place(module, node.lineno)}: {node.module}.{alias.name}"
                    for alias in node.names
                    if re.match(r"_[^_]", alias.name) and f"{node.module}.{alias.name}" not in modules()
                ]
    refuse("no private name of another module", found)


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Circles, one through each arrow that closes one, found and cut one after another."""
    arrows = {start: set(ends) for start, ends in arrows.items()}
    found = []
    while True:
        try:
            TopologicalSorter(arrows).prepare()
        except CycleError as error:
            # The sorter's arrows point from what is needed to what needs it.
            circle = error.args[1][::-1]
            found.append(circle)
            arrows[circle[0]].discard(circle[1])
        else:
            return found


def test_no_circles_even_inside_functions():
    """An import inside a function, or for a type, may wait for a heavy package, but must not hide a circle.

    A package that imports its names on first use lists them for type checkers; that is no arrow.
    """
    arrows = {}
    for module, path in modules().items():
        found = imports(module, at_import_time=False, for_types=path.name != "__init__.py")
        arrows[module] = set(found) & set(modules()) - {module}
    refuse("no circle of imports", (" -> ".join(circle) for circle in circles(arrows)))


def test_circles_can_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}}) in ([["a", "b", "a"]], [["b", "a", "b"]])
    assert len(circles({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c"}})) == 2


# ------------------------------------------------------------------------------------------------------ public names


def exported(module: str) -> list[str] | None:
    """What stands in ``__all__``."""
    for node in tree(module).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if target is not None and ast.unparse(target) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def test_every_public_module_says_what_it_offers():
    refuse(
        "__all__ in every public module",
        (place(module, 1) for module in modules() if is_public(module) and exported(module) is None),
    )


def test_public_modules_hold_no_helpers_of_others():
    """What a public module defines without an underscore is for users; helpers of others live in a `_name.py`."""
    found = []
    for module in modules():
        offered = exported(module)
        if is_public(module) and offered is not None:
            found += [
                f"{place(module, node.lineno)}: {node.name}"
                for node in tree(module).body
                if isinstance(node, ast.ClassDef | ast.FunctionDef)
                and not node.name.startswith("_")
                and node.name not in offered
            ]
            found += [f"{place(module, 1)}: {name} in __all__" for name in offered if re.match(r"_[^_]", name)]
    refuse("what a public module defines is in its __all__, or private", found)
