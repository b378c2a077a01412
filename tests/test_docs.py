"""Every Python block of README.md and docs/*.md runs, and prints what the page says it prints, or about that."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import re
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import pytest
from matplotlib import pyplot
from page_servers import page_with_servers
from test_package import LAYERS

from micropref import MixtureBradleyTerry

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "docs/examples").glob("plot_*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The tasks of docs/guides.rst, in its order.
GUIDES = (
    *("data", "quickstart", "stated", "users", "choosing", "ask", "serve", "trl"),
    *("reading_tables", "scale", "troubleshooting"),
)
# What a page says about the block before: within a line, or in a block of text.
ABOUT = re.compile(r"\s*It prints about(?: `([^`]+)`|\s+```text\n(.*?)\n```)", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")
# Any other fence is an error, so that no block escapes by a misspelt language.
LANGUAGES = {"python", "output", "text", "console", "bash"}


class Block(NamedTuple):
    language: str
    line: int
    content: str


def blocks_of(text: str) -> list[Block]:
    """Fenced blocks of a page; `line` is that of the first line inside, counted from 1."""
    blocks: list[Block] = []
    opened: tuple[str, int] | None = None
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        fence = re.match(r"\s*```(.*)$", line)
        if fence is None:
            continue
        if opened is None:
            opened = fence[1].strip(), number
        else:
            language, start = opened
            blocks.append(Block(language, start + 1, "\n".join(lines[start : number - 1])))
            opened = None
    if opened is not None:
        raise ValueError(f"the block that begins in line {opened[1]} has no end")
    return blocks


def run_page(name: str, text: str) -> None:
    """Run the Python blocks in one namespace and compare what they print with what the page says after them."""
    lines = text.splitlines()
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks_of(text):
        if block.language not in LANGUAGES:
            raise ValueError(f"{name}, line {block.line - 1}: the language {block.language!r} is none of {LANGUAGES}")
        if block.language == "output":
            if printed is None:
                raise ValueError(f"{name}, line {block.line - 1}: an output that follows no Python block")
            assert printed.rstrip() == block.content.rstrip(), f"{name}, line {block.line}"
        printed = None
        if block.language == "python":
            # Blank lines before the code make tracebacks name the line of the page.
            code = compile("\n" * (block.line - 1) + block.content, name, "exec")
            with contextlib.redirect_stdout(io.StringIO()) as captured:
                exec(code, namespace)
            printed = captured.getvalue()
            about = ABOUT.match("\n".join(lines[block.line + block.content.count("\n") + 1 :]))
            if about is not None:
                assert_about(printed, about[1] or about[2], f"{name}, after line {block.line}")


def assert_about(printed: str, expected: str, where: str) -> None:
    """The same words, and numbers within 0.1 and a tenth: the last digits depend on the machine."""
    words = [re.sub(r"\s", "", NUMBER.sub("#", text)) for text in (printed, expected)]
    assert words[0] == words[1], f"{where}: {printed}"
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.1, abs=0.1), f"{where}: {printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with page_with_servers(page, monkeypatch, tmp_path) as text:
        run_page(str(page.relative_to(ROOT)), text)


def test_the_pages_that_must_exist_are_among_them():
    assert {"README.md", *(f"{name}.md" for name in GUIDES)} <= {page.name for page in PAGES}


def test_guides_are_listed_in_their_order():
    """After the installation, and before all other pages of the list."""
    text = (ROOT / "docs/guides.rst").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^:doc:`(\w+)`$", text, re.M))[: 1 + len(GUIDES)] == ("install", *GUIDES)


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_states_its_task_runs_and_says_what_to_look_at(name):
    text = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    first = text.split("\n\n")[1]
    assert first.startswith("This guide ")
    titles = re.findall(r"^## (.*)$", text, re.M)
    places = [titles.index(title) for title in ("What to look at", "Reference")]
    assert places == sorted(places)
    assert places[-1] == len(titles) - 1
    assert "what can go wrong" in [title.lower() for title in re.findall(r"^##? (.*)$", text, re.M)]
    assert text.index("```python") < text.index("## Reference")


def test_every_page_has_blocks_that_run():
    for page in PAGES:
        assert any(block.language == "python" for block in blocks_of(page.read_text(encoding="utf-8"))), page.name


def test_blocks_share_a_namespace_and_failures_name_their_line():
    run_page("page.md", "```python\nx = 1\n```\n\n```python\nassert x == 1\n```")
    with pytest.raises(ZeroDivisionError) as error:
        run_page("page.md", "One\n\n```python\nx = 1\nx / 0\n```")
    where = error.tb
    while where.tb_next is not None:
        where = where.tb_next
    assert (where.tb_frame.f_code.co_filename, where.tb_lineno) == ("page.md", 5)


def test_outputs_are_compared():
    page = "```python\nprint(1 + 1)\n```\ngives\n```output\n{}\n```"
    run_page("page.md", page.format(2))
    with pytest.raises(AssertionError, match=r"page\.md, line 6"):
        run_page("page.md", page.format(3))
    with pytest.raises(ValueError, match=r"page\.md, line 1: an output that follows no Python block"):
        run_page("page.md", "```output\n2\n```")


@pytest.mark.parametrize("page", ["```python\nprint('a', 0.52)\n```\n\nIt prints about\n\n```text\n{}\n```",
                                  "```python\nprint('a', 0.52)\n```\n\nIt prints about `{}`; more."])  # fmt: skip
def test_what_a_block_prints_about_is_compared(page):
    run_page("page.md", page.format("a 0.5"))
    for wrong in ("a 0.8", "b 0.5", "a 0.5 0.5", "a -0.5"):
        with pytest.raises(AssertionError, match=r"page\.md, after line 2"):
            run_page("page.md", page.format(wrong))


@pytest.mark.parametrize("language", ["py", "Python", ""])
def test_a_block_of_another_language_is_an_error(language):
    with pytest.raises(ValueError, match="line 1: the language"):
        run_page("page.md", f"```{language}\n1 / 0\n```")


def test_text_is_not_run():
    run_page("page.md", "```text\n1 / 0\n```\n```console\n$ false\n```\n```bash\nfalse\n```")


def test_a_block_without_end_is_an_error():
    with pytest.raises(ValueError, match="line 2 has no end"):
        blocks_of("One\n```python\nx = 1")


LESSONS = {
    "irreducible_error", "printed_bound_zero", "raw_scores", "without_annotators", "temperature", "worker_history",
    "choosing_k", "two_stages", "points_or_clouds", "ask",
}  # fmt: skip


def test_the_lessons_are_there():
    assert {path.stem.removeprefix("plot_") for path in EXAMPLES} >= LESSONS


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_pages(path):
    """A title with its underline, prose, and code that compiles; the docs' build runs them all."""
    text = path.read_text(encoding="utf-8")
    title, rule = ast.get_docstring(ast.parse(text)).splitlines()[:2]
    assert set(rule) == {"="}
    assert len(rule) >= len(title)
    assert "print(" in text
    assert "# %%" in text
    compile(text, str(path), "exec")


@pytest.mark.parametrize(
    ("lesson", "variable", "keys"),
    [
        ("worker_history", "gains", []),
        pytest.param("ask", "curves", ["four tastes", "nearly one taste"], marks=pytest.mark.slow),
    ],
)
def test_examples_without_the_real_data_say_so(lesson, variable, keys, monkeypatch, capsys):
    """And still draw their figure, so that the page has one."""
    mpl.use("Agg")
    monkeypatch.delenv("MICROPREF_DATA", raising=False)
    path = ROOT / f"docs/examples/plot_{lesson}.py"
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
    pyplot.close("all")
    assert "MICROPREF_DATA" in capsys.readouterr().out
    found = namespace[variable]
    assert isinstance(found, dict)
    assert list(found) == keys


def reference_pages():
    """The module that decides what the reference lists; it needs no Sphinx."""
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs/_ext/reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference():
    """Packages of the reference, and the names that it lists for them."""
    pages = reference_pages()
    packages = pages.packages()
    offered = {path.stem if path.suffix else path.name for path in (ROOT / "micropref").iterdir()}
    offered = {name for name in offered if not name.startswith((".", "_")) and name != "py"}
    listed = {name.split(".")[1] for name in packages if "." in name}
    assert offered - pages.WITHOUT_PAGE == listed
    names = {pages.home(package, name) for package in packages for name in pages.public_names(package)}
    for package, page in packages.items():
        in_sections = [name for names in pages.sections(package, page).values() for name in names]
        assert len(in_sections) == len(set(in_sections)), package
        kept = {"save", "load"} if package == "micropref" else set()
        assert {*in_sections, *kept} == set(pages.public_names(package)), package
    assert {"micropref.MixtureBradleyTerry", "micropref.metrics.grouped_log_likelihood", "micropref.save"} <= names
    assert "micropref.selection.select_n_components" in names


def test_names_that_sections_of_the_reference_list_are_public():
    pages = reference_pages()
    for package, page in pages.PACKAGES.items():
        listed = {name for names in page.sections.values() for name in names}
        assert listed <= set(pages.public_names(package)), package


def test_the_text_of_parameters_is_read_from_docstrings_and_looked_for():
    """`.ci/check_pages.py`, which runs on the built pages, on two small ones."""
    spec = importlib.util.spec_from_file_location("check_pages", ROOT / ".ci/check_pages.py")
    assert spec is not None
    assert spec.loader is not None
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    found = check.parameters(MixtureBradleyTerry.fit.__doc__)
    assert "who answered" in found["groups"].lower() or len(check.words(found["groups"])) > 20
    page = check.Page(
        '<dt id="x">X</dt><dd>Heads <code>w</code>\\(w_k\\) of all <a href="#y">rows</a></dd><script>bad</script>'
    )
    assert check.words(page.text) == check.words("Heads :math:`w_k` of all `rows`")
    assert page.anchors == {"x"}
    assert page.links == ["#y"]


def test_paths_that_pages_name_exist():
    """Those that a reader would open: of modules, tests and benchmarks; NAME stands for a name of one's own."""
    wrong = []
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        for path in re.findall(
            r"\b(?:micropref|tests|benchmarks|docs|\.ci)/[\w/.-]*\w", page.read_text(encoding="utf-8")
        ):
            if "NAME" not in path and not path.startswith("docs/_build") and not (ROOT / path).exists():
                wrong.append(f"{page.relative_to(ROOT)}: {path}")
    assert not wrong, "\n".join(wrong)


def test_links_between_pages_lead_somewhere():
    """Files and headings, also from pages that Sphinx does not build; it makes the reference and the gallery itself."""
    wrong = []
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            target = page.parent / path if path else page
            if path.startswith(("api/", "gallery/")):
                continue
            if not target.exists():
                wrong.append(f"{page.name}: {path}")
            elif heading and heading not in headings(target.read_text(encoding="utf-8")):
                wrong.append(f"{page.name}: {path}#{heading}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_in_one_list_of_the_navigation():
    listed: list[str] = []
    for page in ("index", "guides", "project"):
        text = (ROOT / f"docs/{page}.rst").read_text(encoding="utf-8")
        entries = re.findall(r"^   (?!:)(.+)$", text.partition(".. toctree::")[2], re.M)
        listed += [re.sub(r".*<(.*)>$", r"\1", entry) for entry in entries]
    pages = {path.stem for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".rst")}
    pages -= {"index", "sg_execution_times"}
    assert sorted(listed) == sorted([*pages, "api/index", "gallery/index"])


def headings(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_map_shows_every_room():
    """The picture and the table of docs/architecture.md, against the layers that a test enforces."""
    rooms = {room for layer in LAYERS for room in layer} - {""}
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert {room for room in rooms if f"`{room}`" not in page} == set()
    picture = re.findall(r'class="room"[^>]*>([^<]*)<', (ROOT / "docs/architecture.svg").read_text(encoding="utf-8"))
    shown = [room for line in picture for room in line.split(" · ")]
    assert set(shown) <= rooms
    there = {path.stem for path in (ROOT / "micropref").iterdir() if path.is_dir()} - {"__pycache__"}
    assert there <= set(shown)
    layer_of = {room: number for number, layer in enumerate(LAYERS) for room in layer}
    order = [layer_of[room] for room in shown]
    assert order == sorted(order)


def test_pages_speak_of_users_and_annotators():
    vague = re.compile(r"\b(some|no|every|any)body\b|\bwhoever\b", re.IGNORECASE)
    pages = [
        *PAGES,
        *EXAMPLES,
        *(ROOT / "docs").glob("*.rst"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
    ]
    wrong = [
        f"{page.relative_to(ROOT)}:{number}: {line}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
        if vague.search(line)
    ]
    assert not wrong, "\n".join(wrong)
