"""`micropref doctor`: what it says of this machine and of others, and that a path which errs is found."""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from test_cli import run  # noqa: F401  (a fixture)
from test_terminal import Terminal

from micropref import __version__
from micropref._installation import Card, Check, Devices, TorchBuild, examine
from micropref._installation import checks as all_checks
from micropref._installation import devices as all_devices
from micropref._installation import findings as all_findings
from micropref._installation import packages as all_packages
from micropref._installation.checks import Case, cases, check
from micropref._installation.choices import Choice, choices
from micropref._installation.devices import Library, driver_cards
from micropref._installation.packages import Package, packages
from micropref._installation.truth import example, truth
from micropref._installation.variables import environment, unusable
from micropref.cli import main

H100 = Card("NVIDIA H100 80GB HBM3", 85.5, "9.0")
ON_CPU = Devices(2, 2, 8.2, ["openblas 0.3.30, 2 threads"], [], Library(TorchBuild("2.13.0+cpu", None, []), None), None)
ON_CUDA = Devices(
    16, 16, 137.4, ["openblas 0.3.30, 16 threads"], [H100], Library(TorchBuild("2.13.0", "13.0", [H100]), None),
    Library(1, None),
)  # fmt: skip
KEYS = {
    *("ok", "problems", "advice", "micropref", "python", "system", "packages", "devices", "environment", "choices"),
    *("checks", "installed"),
}


def passed(case: Case) -> Check:
    return Check(case.path, f"{case.dtype} on {case.device}", case.n_components, 1e-7, 1e-5, 812.3, 0.4)


@pytest.fixture
def machine(monkeypatch):
    """Let the command look at another machine, on which every check passes, with these versions of packages."""

    def fake(devices: Devices, **versions: str | None) -> None:
        def looked_up():
            return [
                replace(one, version=versions.get(one.module, "1.0" if one.extra is None else None), at_least=None)
                for one in packages()
            ]

        monkeypatch.setattr(all_findings, "packages", looked_up)
        monkeypatch.setattr(all_findings, "devices", lambda *_: devices)
        monkeypatch.setattr(all_findings, "check", passed)
        monkeypatch.setattr(all_findings, "choices", lambda _: choices(ON_CPU))
        monkeypatch.setattr(all_findings, "faiss_checks", lambda _: [])

    return fake


@pytest.fixture
def only(monkeypatch):
    """Check these cases alone, so that neither torch nor numba is needed."""

    def kept(*wanted: Case) -> None:
        monkeypatch.setattr(all_findings, "cases", lambda *_: list(wanted))
        monkeypatch.setattr(all_findings, "faiss_checks", lambda _: [])
        monkeypatch.setattr(all_findings, "devices", lambda *_: replace(ON_CPU, torch=None))
        monkeypatch.setattr(all_findings, "installed_version", lambda: __version__)
        monkeypatch.setattr(all_findings, "environment", dict)

    return kept


# ------------------------------------------------------------------------------------------------------ this machine


def test_this_installation_is_well(run):  # noqa: F811
    """Everything that the tests install is checked, and passes."""
    done = run("doctor", "--json")
    found = done.json
    assert done.code == 0
    assert found["ok"]
    assert found.keys() == KEYS
    assert found["micropref"] == __version__
    assert {one["path"] for one in found["checks"]} >= {"reference", "blas", "numba", "torch layer", "faiss"}
    for one in found["checks"]:
        assert one["passed"]
        assert 0 <= one["error"] <= one["tolerance"]
        assert 0 < one["ms"] <= 10 * one["first_ms"] + 10
    versions = {one["module"]: one["version"] for one in found["packages"]}
    assert versions["numpy"] == np.__version__
    assert all(version is not None for version in versions.values())
    assert {one["name"] for one in found["packages"]} >= {"scikit-learn", "faiss-cpu", "sentence-transformers"}
    assert [one["path"] for one in found["choices"]] == ["blas", "numba"]
    assert found["devices"]["cores"] == os.cpu_count()


def test_what_is_shown_fits_80_columns(monkeypatch, only):
    only(Case("blas", "NumPy", "float64"), Case("reference", "NumPy", "float32"))
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as left:
        main(["doctor"])
    assert not left.value.code
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for phrase in (__version__, "numpy", "blas", "reference", "NumPy float64", "ok", "All is well: 2 checks passed."):
        assert phrase in text


# ----------------------------------------------------------------------------------------------------- other machines


def test_a_machine_with_a_card(machine, run):  # noqa: F811
    machine(ON_CUDA, torch="2.13.0", triton="3.9.0", numba="0.68.1", faiss="1.15.1")
    done = run("doctor")
    assert done.code == 0
    on_cards = ("2.13.0 for CUDA 13.0, sees 1 card", "sees 1 card; the index of micropref is on the CPU")
    for phrase in (H100.name, "85.5 GB", "9.0", *on_cards):
        assert phrase in done.out
    found = run("doctor", "--json").json
    assert found["devices"]["cards"] == [{"name": H100.name, "memory_gb": 85.5, "capability": "9.0"}]
    on_card = {(one["path"], one["input"]) for one in found["checks"] if "cuda:0" in one["input"]}
    assert {path for path, _ in on_card} == {"triton", "reference", "layer"}
    assert {("triton", f"{dtype} on cuda:0") for dtype in ("float32", "float16", "bfloat16")} <= on_card
    assert "pip install" not in done.err


def test_every_kernel_of_triton_is_chosen_on_a_card():
    on_card = [case for case in cases(ON_CUDA, True, True) if case.path == "triton"]
    shown = {all_checks._shown_path(case, example(2, case.n_components)) for case in on_card}
    assert shown == {"triton, rows", "triton, small", "triton, large"}


@pytest.mark.parametrize(
    ("devices", "versions", "advice"),
    [
        (replace(ON_CUDA, torch=None), {}, "This machine has a CUDA card, but no torch"),
        (replace(ON_CPU, cards=[H100]), {"torch": "2.13.0+cpu"}, "torch 2.13.0+cpu is a build for the CPU"),
        (
            replace(ON_CUDA, torch=Library(TorchBuild("2.13.0", "13.0", []), None)),
            {"torch": "2.13.0"},
            "torch 2.13.0 for CUDA 13.0 sees none of the CUDA cards",
        ),
        (ON_CPU, {}, "Fits of large data are two to six times faster with numba"),
    ],
)
def test_advice(machine, run, devices, versions, advice):  # noqa: F811
    """What works, but could work better, is no error."""
    machine(devices, **versions)
    done = run("doctor")
    assert done.code == 0
    assert advice in done.out


@pytest.mark.parametrize(("installed", "is_advised"), [("0.0.1", True), (__version__, False), (None, False)])
def test_metadata_of_another_version(machine, monkeypatch, installed, is_advised):
    """An editable installation keeps the bounds of the version that was installed."""
    machine(ON_CPU)
    monkeypatch.setattr(all_findings, "installed_version", lambda: installed)
    found = examine()
    said = f"metadata are of micropref {installed}, but the code is {__version__}"
    lines = [line for line in found.advice if said in line]
    assert len(lines) == is_advised
    assert all("Run pip install -e . again" in line for line in lines)
    assert not found.problems


@pytest.mark.parametrize(
    ("name", "expected", "wrong", "right"),
    [
        ("OMP_NUM_THREADS", "a positive integer", ["abc", "0", "-1", "2,", "2,x", "1.5"], ["1", " 8 ", "4,2", ""]),
        ("OPENBLAS_NUM_THREADS", "a positive integer", ["-3", "0", "two", "4,2"], ["16", ""]),
        ("MKL_NUM_THREADS", "a positive integer", ["-3", "0", "²"], ["16", ""]),
        ("NVIDIA_TF32_OVERRIDE", "0 or 1", ["no", "2"], ["0", "1", ""]),
        ("TRITON_INTERPRET", "0 or 1", ["banana", "2"], ["0", "1", ""]),
        ("HF_HUB_OFFLINE", "0 or 1", ["banana"], ["0", "1", "TRUE", "off", ""]),
        ("MICROPREF_DATA", "a folder that exists", ["nowhere", "a file", "~"], [".", ""]),
        ("TRITON_CACHE_DIR", "a folder that can be written to", ["a file", "a file/below"], [".", "not/yet", ""]),
        ("NUMBA_CACHE_DIR", "a folder that can be written to", ["a file", "a file/below"], [".", "not/yet", ""]),
        ("HF_HOME", "a folder that can be written to", ["a file", "a link/below"], [".", "not/yet", ""]),
        ("CUDA_VISIBLE_DEVICES", "", [], ["", "0,1", "GPU-8932f937"]),
    ],
)
def test_variables_that_mean_nothing(name, expected, wrong, right, tmp_path, monkeypatch):
    """Libraries ignore them in silence; whether a folder can be written to is found out without leaving a trace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    (tmp_path / "a link").symlink_to("nowhere")

    def advised(value):
        monkeypatch.setenv(name, value)
        return [line for line in unusable(environment()) if line.startswith(name)]

    for value in wrong:
        assert advised(value) == [f"{name}: expected {expected}, got {value!r}"]
    for value in right:
        assert advised(value) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "a link"]


@pytest.mark.parametrize(
    ("value", "version", "is_advised"),
    [("1", "0.68.1", True), ("0", "0.68.1", False), ("", "0.68.1", False), (None, "0.68.1", False), ("1", None, False)],
)
def test_a_compiler_that_is_turned_off(machine, monkeypatch, value, version, is_advised):
    """The error of the check, that an intrinsic is not usable in pure Python, does not name the variable."""
    machine(ON_CPU, numba=version)
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    if value is not None:
        monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert any("unset NUMBA_DISABLE_JIT" in line for line in examine().advice) == is_advised


def test_all_is_well_only_without_advice(only, run, monkeypatch):  # noqa: F811
    only(Case("blas", "NumPy", "float64"))
    assert "All is well: 1 check passed." in run("doctor").out
    monkeypatch.setattr(all_findings, "environment", lambda: {"OMP_NUM_THREADS": "abc"})
    done = run("doctor")
    assert done.code == 0
    assert "advice: OMP_NUM_THREADS: expected a positive integer, got 'abc'" in done.out
    assert "1 check passed." in done.out
    assert "All is well" not in done.out


def test_cards_that_are_hidden(machine, run, monkeypatch):  # noqa: F811
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(replace(ON_CUDA, torch=Library(TorchBuild("2.13.0", "13.0", []), None)), torch="2.13.0")
    out = run("doctor").out
    assert "torch sees none of the CUDA cards: CUDA_VISIBLE_DEVICES is ''." in out


@pytest.mark.parametrize(
    ("names", "n_cards", "advice"),
    [
        (["faiss-cpu", "faiss-gpu"], 1, "pip uninstall faiss-cpu faiss-gpu, then install one"),
        (["faiss-gpu"], 0, "faiss-gpu sees no CUDA card"),
        (["faiss-gpu"], 1, None),
    ],
)
def test_two_builds_of_faiss_and_one_that_sees_no_card(machine, monkeypatch, names, n_cards, advice):
    machine(replace(ON_CUDA, faiss=Library(n_cards, None)), faiss="1.15.1", numba="1.0", torch="2.13.0", triton="3.9.0")
    versions = all_findings.packages()
    with_faiss = [replace(one, distributions=names) if one.module == "faiss" else one for one in versions]
    monkeypatch.setattr(all_findings, "packages", lambda: with_faiss)
    found = [line for line in examine().advice if "faiss" in line]
    assert len(found) == (advice is not None)
    assert advice is None or advice in found[0]


def test_libraries_of_linear_algebra_are_listed_in_one_order(monkeypatch):
    kinds = [("openblas", "0.3.9", 2), ("mkl", "2024", 4), ("openblas", "0.3.31", 1), ("mkl", "2024", 4)]
    loaded = [
        {"user_api": "blas", "internal_api": name, "version": version, "num_threads": threads}
        for name, version, threads in kinds
    ]
    other = {"user_api": "openmp", "internal_api": "openmp", "version": None, "num_threads": 2}
    for order in permutations(loaded):
        monkeypatch.setattr(all_devices, "threadpool_info", lambda found=order: [other, *found])
        assert all_devices._blas() == ["mkl 2024, 4 threads", "openblas 0.3.31, 1 thread", "openblas 0.3.9, 2 threads"]


def test_the_driver_is_asked_for_cards(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'NVIDIA H100 80GB HBM3, 81559, 9.0\\nA card, of ours, 1000, [N/A]\\nno\\n'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_cards() == [H100, Card("A card, of ours", 1.0, "[N/A]")]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert driver_cards() == []
    program.unlink()
    assert driver_cards() == []


def test_cards_that_torch_sees_and_faiss(monkeypatch):
    properties = SimpleNamespace(name="A card", total_memory=16e9, major=7, minor=5)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda _: properties
    )
    torch = SimpleNamespace(__version__="2.13.0", version=SimpleNamespace(cuda="13.0"), cuda=cuda)
    faiss = SimpleNamespace(get_num_gpus=lambda: 2)
    monkeypatch.setattr(all_devices, "require", lambda name, _: {"torch": torch, "faiss": faiss}[name])
    monkeypatch.setattr(all_devices, "driver_cards", list)
    found = all_devices.devices(has_torch=True, has_faiss=True)
    assert found.cards == found.torch_cards == [Card("A card", 16.0, "7.5")] * 2
    assert found.faiss_cards == 2


# --------------------------------------------------------------------------------------------------------- what fails


def test_a_path_that_errs_is_an_error_with_its_sentence(only, run, monkeypatch):  # noqa: F811
    only(Case("blas", "NumPy", "float64"), Case("reference", "NumPy", "float64"))
    from micropref.kernels import _blas

    right = _blas.sums
    monkeypatch.setattr(_blas, "sums", lambda *a, **k: (lambda s: s._replace(heads=1.001 * s.heads))(right(*a, **k)))
    done = run("doctor")
    assert done.code == 1
    assert "micropref: error: blas, NumPy float64, 3 heads: expected an error of at most 1e-12, got 0.001" in done.err
    assert "FAILED" in done.out
    assert "All is well" not in done.out
    done = run("doctor", "--json")
    assert done.code == 1
    assert not done.json["ok"]
    assert [one["passed"] for one in done.json["checks"]] == [False, True]
    assert len(done.json["problems"]) == 1


@pytest.mark.parametrize(
    ("path", "place", "marked"),
    [
        ("numba", "NumPy float32", {"numba"}),
        ("blas", "NumPy float64", {"blas"}),
        ("triton, small", "torch float16 on cuda:0", {"triton"}),
        ("triton, rows", "torch float32 on cpu", set()),
        ("reference", "torch float64 on cuda:0", {"reference"}),
        ("reference", "NumPy float64", set()),
        ("torch layer", "torch float32 on cpu", set()),
    ],
)
def test_a_choice_whose_check_failed_is_marked(machine, run, monkeypatch, path, place, marked):  # noqa: F811
    on_card = ("triton", "CUDA tensors in half and single precision"), ("reference", "CUDA tensors in double precision")
    listed = [*choices(ON_CPU), *(Choice(rows, one) for one, rows in on_card)]
    machine(ON_CUDA, torch="2.13.0", triton="3.9.0", numba="0.68.1")
    monkeypatch.setattr(all_findings, "choices", lambda _: listed)
    failed = replace(passed(Case(path, place, "")), input=place, error=1.0)
    monkeypatch.setattr(all_findings, "faiss_checks", lambda _: [failed])
    shown, found = run("doctor"), run("doctor", "--json").json
    assert shown.code == 1
    lines = [line.split()[0] for line in shown.out.splitlines() if line.rstrip().endswith(": its check FAILED")]
    assert set(lines) == marked
    assert {one["path"] for one in found["choices"] if one["failed"]} == marked


def test_a_path_that_raises_or_gives_nan(monkeypatch):
    from micropref.kernels import _blas

    def broken(*_):
        raise RuntimeError("no kernel image is available\nfor this card")

    case = Case("blas", "NumPy", "float32")
    right = _blas.sums
    monkeypatch.setattr(_blas, "sums", broken)
    assert check(case).problem.endswith("at most 2e-05, got RuntimeError: no kernel image is available")
    monkeypatch.setattr(_blas, "sums", lambda *a, **k: right(*a, **k)._replace(heads=np.full((3, 24), np.nan)))
    assert not check(case).passed
    assert check(case).problem.endswith("got inf")


def test_a_library_that_cannot_be_imported(monkeypatch):
    def broken(*_):
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(all_devices, "require", broken)
    monkeypatch.setattr(all_checks, "require", broken)
    found = all_devices.devices(has_torch=True, has_faiss=True)
    assert found.torch == found.faiss == Library(None, "OSError: libcudart.so.13: cannot open shared object file")
    assert not [case for case in cases(found, False, True) if case.device != "NumPy"]
    (of_faiss,) = all_checks.faiss_checks(found)
    assert "libcudart" in of_faiss.problem


def test_packages_that_are_too_old_or_missing(machine, run, monkeypatch):  # noqa: F811
    machine(ON_CPU)
    fine = all_findings.packages()
    bad = [Package("numpy", ["numpy"], "1.25.2", "1.26", None), Package("scipy", [], None, "1.11", None), *fine[2:]]
    monkeypatch.setattr(all_findings, "packages", lambda: bad)
    done = run("doctor")
    assert done.code == 1
    assert "micropref: error: numpy: expected version 1.26 or newer, got 1.25.2" in done.err
    assert "micropref: error: scipy: expected it to be installed, got nothing" in done.err


@pytest.mark.parametrize(
    ("version", "at_least", "is_old"),
    [
        ("1.25.2", "1.26", True), ("1.26", "1.26.0", False), ("2.13.0+cpu", "2.4", False), ("2.4.0rc1", "2.4", False),
        ("unknown", "2.4", False), (None, "2.4", False), ("0.9", None, False),
    ],
)  # fmt: skip
def test_versions_are_compared_by_their_numbers(version, at_least, is_old):
    assert Package("m", [], version, at_least, None).is_too_old == is_old


def test_bounds_are_those_of_the_installed_metadata(monkeypatch):
    lines = [
        "numpy>=1.26", "Scikit_Learn >=1.7", 'faiss-cpu>=1.8; extra == "faiss"', 'torch>=2.4 ; extra == "torch"',
        'micropref[plot]; extra == "all"', 'numba>=9; extra == "test"', 'numba (>=0.60) ; extra == "numba"',
    ]  # fmt: skip
    monkeypatch.setattr(all_packages, "requires", lambda _: lines)
    found = {one.module: one.at_least for one in packages()}
    assert {name: found[name] for name in ("numpy", "sklearn", "faiss", "torch", "numba", "scipy")} == {
        "numpy": "1.26", "sklearn": "1.7", "faiss": "1.8", "torch": "2.4", "numba": "0.60", "scipy": None,
    }  # fmt: skip


def test_what_is_absent_is_shown_with_its_extra(machine, run):  # noqa: F811
    machine(replace(ON_CPU, torch=None), numba="0.68.1")
    out = " ".join(run("doctor").out.split())
    assert "fastapi, pydantic, uvicorn, httptools: pip install 'micropref[serve]'" in out
    assert "torch: pip install 'micropref[torch]'" in out
    assert "micropref[numba]" not in out


@pytest.mark.parametrize(
    ("devices", "version", "is_missing"),
    [
        (replace(ON_CPU, torch=None), None, False),
        (ON_CPU, None, False),
        (replace(ON_CPU, torch=Library(None, "OSError")), None, False),
        (ON_CUDA, None, True),
        (ON_CUDA, "3.9.0", False),
    ],
)
def test_triton_is_missing_only_from_a_build_of_torch_for_cuda(machine, run, devices, version, is_missing):  # noqa: F811
    """No command brings it to another build."""
    machine(devices, torch=None if devices.torch is None else "2.13.0", triton=version)
    out = run("doctor").out
    assert ("triton: pip install 'micropref[torch]'" in out) == is_missing
    assert is_missing or "triton:" not in out


# --------------------------------------------------------------------------------------------------------- the truth


def test_the_truth_is_the_gradient_of_its_value():
    """By central differences, which share nothing with the kernels."""
    given = example(40, 3)
    _, *gradients = truth(given)
    for name, gradient in zip(("W", "V", "b"), gradients, strict=True):
        array, step = getattr(given, name), 1e-6
        for at in list(np.ndindex(array.shape))[::7]:
            values = []
            for sign in (-1, 1):
                moved = array.copy()
                moved[at] += sign * step
                values.append(truth(given._replace(**{name: moved}))[0])
            assert (values[1] - values[0]) / (2 * step) == pytest.approx(gradient[at], abs=1e-8)
