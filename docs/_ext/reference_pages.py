"""Pages of the API reference: which packages and names they list, read from ``__all__``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import micropref


class Package(NamedTuple):
    """A page of the reference: the title in the sidebar, and the names of each section; the rest follows them."""

    title: str
    sections: Mapping[str, list[str]] = MappingProxyType({})


# In the order of the pages. Names that are no longer, or not yet, public are left out.
PACKAGES = {
    "micropref": Package(
        "Estimators and models",
        {
            "Estimators": ["MixtureBradleyTerry", "HierarchicalBradleyTerry", "ContextRouter"],
            "Models of texts": ["PreferenceModel", "PairEncoder", "EmbeddingStore"],
            "Pairs and their features": [
                "make_pairs",
                "swap_pairs",
                "split_pairs",
                "PairScaler",
                "ContextInteractions",
            ],
            "Data": ["read_preferences", "make_preferences", "load_demo"],
            "Annotation": ["suggest_annotations"],
        },
    ),
    "micropref.baselines": Package(
        "Rival methods",
        {
            "Users choose among heads": ["HypothesisReweighting", "SharedBaseEnsemble", "DecomposedRewards"],
            "Users combine a basis": ["LowRankRewards", "RewardFactorization"],
            "Users have a reward": ["UserRewards", "HardMixture", "GroupRewards", "ContextNeighbors"],
            "Distributions of tastes": ["MeanVarianceRewards", "CategoricalRewards"],
            "Learned from ratings": ["MultiObjectiveRewards"],
        },
    ),
    "micropref.theory": Package("Theory"),
    "micropref.metrics": Package(
        "Metrics and tests",
        {
            "Scores": ["group_metrics", "best_head_per_group", "head_agreement", "grouped_log_likelihood"],
            "Label budgets": ["budget_curve"],
            "Benchmarks": ["reward_bench_score"],
            "Intervals": ["accuracy_interval", "mean_interval"],
            "Tests of differences": ["paired_bootstrap", "mcnemar", "adjust_p_values"],
        },
    ),
    "micropref.selection": Package("Number of heads"),
    "micropref.heads": Package("Upkeep of heads"),
    "micropref.features": Package("Features"),
    "micropref.datasets": Package(
        "Data sets",
        {
            "Reading": ["read_preferences", "load_folder", "PreferenceTable", "ReadReport", "MalformedRowError"],
            "Published sets": [
                *("load_helpsteer2", "load_hh_rlhf", "load_personal_reward_bench", "load_prism"),
                *("load_reward_bench", "load_rpr", "load_ultrafeedback"),
                *("load_helpsteer2_ratings", "load_ultrafeedback_ratings", "RatingTable"),
            ],
            "Simulated worlds": ["make_preferences", "make_world", "load_demo"],
        },
    ),
    "micropref.embed": Package(
        "Encoders and the store",
        {
            "Encoders": [
                *("HashingEncoder", "StaticEncoder", "SentenceTransformerEncoder", "LastTokenEncoder", "HTTPEncoder"),
                *("LoadedEncoder", "Encoder"),
            ],
            "Tables to X": ["PairEncoder", "TruncationWarning"],
            "The store of vectors": ["EmbeddingStore", "plan_embedding", "EmbeddingPlan", "Compaction"],
        },
    ),
    "micropref.integrations.trl": Package("Rewards for TRL"),
    "micropref.integrations.openrlhf": Package("Rewards for OpenRLHF"),
    "micropref.integrations.verl": Package("Rewards for verl"),
    "micropref.serve": Package("A server"),
    "micropref.persistence": Package("Saving and loading"),
    "micropref.plotting": Package("Displays"),
    "micropref.bench": Package("Benchmark suites"),
    "micropref.kernels": Package("Kernels"),
    "micropref.distributed": Package("Several processes"),
}
# The command line is documented by `--help`; modules whose names are all public in `micropref` have no page.
WITHOUT_PAGE = {"cli", "demo", "hierarchical", "mixture", "pairs", "reward", "router"}


def packages() -> dict[str, Package]:
    """Pages of the reference; a public package that PACKAGES does not name has one at the end."""
    folder = Path(micropref.__file__).parent
    names = sorted(path.stem if path.suffix else path.name for path in folder.iterdir())
    public = [name for name in names if not name.startswith((".", "_")) and name != "py" and name not in WITHOUT_PAGE]
    found = dict(PACKAGES)
    for name in public:
        module = importlib.import_module(f"micropref.{name}")
        inside = [one for one in module.__all__ if inspect.ismodule(getattr(module, one))]
        # A package of modules, as that of the integrations, has a page for each of these.
        offered = [f"micropref.{name}.{one}" for one in inside] or [f"micropref.{name}"]
        found |= {one: Package(one.rpartition(".")[2].capitalize()) for one in offered if one not in found}
    return found


def public_names(name: str) -> list[str]:
    """What a package offers: its ``__all__``, or what a module defines; a name has its page where users import it."""
    module = importlib.import_module(name)
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name]
    names = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
    return sorted(set(names) - {"__version__"})


def home(package: str, name: str) -> str:
    """The full name under which a public name has its page: the shortest one."""
    short = package != "micropref" and name in micropref.__all__
    return f"micropref.{name}" if short else f"{package}.{name}"


def sections(package: str, page: Package) -> dict[str, list[str]]:
    """Names by section, each once; those that no section lists come last."""
    names = public_names(package)
    found = {title: [name for name in listed if name in names] for title, listed in page.sections.items()}
    listed = {name for group in found.values() for name in group}
    rest = [name for name in names if name not in listed]
    if package == "micropref":  # `save` and `load` have their page with the others of persistence
        rest = [name for name in rest if name not in ("save", "load")]
    if rest:
        found["Results, errors and others" if found else ""] = rest
    return {title: group for title, group in found.items() if group}


def write(folder: Path) -> None:
    """One page per package with a table for each section, and the index of them all."""
    folder.mkdir(exist_ok=True)
    index = ["API reference", "=============", "", "Every public class and function, by what it is for.", ""]
    index += [".. toctree::", "   :hidden:", ""]
    pages = packages()
    index += [f"   {name}" for name in pages] + [""]
    for name, page in pages.items():
        _write_if_changed(folder / f"{name}.rst", "\n".join(_page(name, page)))
        listed = [home(name, one) for group in sections(name, page).values() for one in group]
        index += [page.title, "-" * len(page.title), "", f":doc:`{name} <{name}>`: {_summary(name)}", ""]
        index += [" ·\n".join(f":py:obj:`{full.rpartition('.')[2]} <{full}>`" for full in listed), ""]
    _write_if_changed(folder / "index.rst", "\n".join(index))


def _summary(name: str) -> str:
    docstring = (importlib.import_module(name).__doc__ or "").strip()
    return docstring.split("\n\n")[0].replace("\n", " ").removeprefix(f"{name}: ")


def _page(name: str, page: Package) -> Iterator[str]:
    yield from (page.title, "=" * len(page.title), "")
    yield from (f"``{name}``", "", *(importlib.import_module(name).__doc__ or "").strip().splitlines(), "")
    for title, names in sections(name, page).items():
        if title:
            yield from (title, "-" * len(title), "")
        yield from (".. autosummary::", "   :toctree: generated", "   :nosignatures:", "")
        yield from (f"   ~{home(name, one)}" for one in names)
        yield ""
    yield from (f".. module:: {name}", "")  # at the end, since tables name their entries in full


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
