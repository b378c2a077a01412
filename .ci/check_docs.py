"""After the docs are built: every example left a page, a notebook and figures that show something."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib import image


def main(docs: Path) -> int:
    wrong = []
    examples = sorted((docs / "examples").glob("plot_*.py"))
    if len(examples) < 8:
        wrong.append(f"{len(examples)} examples, fewer than 8")
    for example in examples:
        name = example.stem
        for made in (docs / "gallery" / f"{name}.ipynb", docs / "_build/html/gallery" / f"{name}.html"):
            if not made.exists() or made.stat().st_size < 1000:
                wrong.append(f"{made.relative_to(docs)} is missing or empty")
        figures = sorted((docs / "gallery/images").glob(f"sphx_glr_{name}_0*.png"))
        if not figures:
            wrong.append(f"{name} drew nothing")
        for figure in figures:
            pixels = image.imread(figure)[..., :3]
            if min(pixels.shape[:2]) < 100 or pixels.std() < 0.01:
                wrong.append(f"{figure.relative_to(docs)} is empty")
    pages = {path.stem for path in docs.iterdir() if path.suffix in (".md", ".rst")}
    for page in sorted(pages | {"api/index", "gallery/index"}):
        if not (docs / "_build/html" / f"{page}.html").exists():
            wrong.append(f"{page}.html is missing")
    shown = {
        line.split("::")[1].strip() for line in (docs / "pictures.rst").read_text().splitlines() if "figure::" in line
    }
    wrong += [
        f"{path} of pictures.rst is not on disk" for path in sorted(shown) if not (docs / path.lstrip("/")).exists()
    ]
    print("\n".join(wrong) or f"{len(examples)} examples, each with its page, notebook and figures")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
