"""`symm doctor`: what this machine can run, and why not more."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli.doctor import examine
from harness.errors import MachineError
from harness.machine import libraries, profiler
from harness.machine.libraries import Library
from harness.machine.observer import build
from tests.tools.commands import forked, symm
from tests.tools.libraries import nccl


def test_doctor_says_which_substrate_a_run_would_get(tmp_path: Path) -> None:
    checks = forked(tmp_path, "doctor", "--json", "-").data["checks"]
    auto = next(check for check in checks if check["what"] == "substrate auto")
    assert (auto["found"], auto["means"]) == ("sim", "no GPU is visible")


def test_doctor_finds_nothing_wrong_with_a_machine_without_gpu(tmp_path: Path) -> None:
    assert forked(tmp_path, "doctor").status == 0


def rows() -> dict[str, str]:
    return {row.what: row.found for row in examine().rows}


def test_without_a_gpu_only_the_simulation_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (rows()["GPUs"].split()[0], rows()["substrate auto"]) == ("none", "sim")


@pytest.mark.parametrize(
    ("number", "lacks"),
    [
        (22703, {"peer pointers", "several ranks on a GPU", "evidence forced"}),
        (23000, {"evidence forced"}),
        (23203, set()),
    ],
)
def test_a_feature_that_this_nccl_lacks_names_the_version_that_has_it(
    monkeypatch: pytest.MonkeyPatch, number: int, lacks: set[str]
) -> None:
    bindings = SimpleNamespace(nccl=SimpleNamespace(get_version=lambda: number))
    monkeypatch.setitem(sys.modules, "nccl.bindings", bindings)  # type: ignore[arg-type]
    features = {"peer pointers", "several ranks on a GPU", "evidence forced"}
    assert {what for what, found in rows().items() if found.startswith("no, needs ")} & features == lacks


def test_evidence_that_the_machine_lacks_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = SimpleNamespace(nccl=SimpleNamespace(get_version=lambda: 23203))
    monkeypatch.setitem(sys.modules, "nccl.bindings", bindings)  # type: ignore[arg-type]
    monkeypatch.setattr(profiler, "why_missing", lambda: "no C compiler is on the PATH (cc)")
    assert rows()["evidence calls"] == "no, no C compiler is on the PATH (cc)"


# each libnccl of a rank


def shown(monkeypatch: pytest.MonkeyPatch, *found: Library) -> list[tuple[str, str]]:
    """What is found and what it means, of a rank that maps these libraries."""
    monkeypatch.setattr(libraries, "of_a_rank", lambda environment: found)
    return [(row.found, row.means) for row in examine().rows if row.what == "libnccl"]


def test_a_machine_without_nccl_says_that_a_rank_maps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch) == [("none", "a rank that imports torch and nccl4py maps no NCCL")]


def test_each_library_has_its_version_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Library("/a/libnccl.so.2", "2.32.3", ("nvidia-nccl-cu12 2.30.7", "nvidia-nccl-cu13 2.32.3"))
    packages = "of nvidia-nccl-cu12 2.30.7 and nvidia-nccl-cu13 2.32.3"
    assert shown(monkeypatch, own) == [("/a/libnccl.so.2", f"NCCL 2.32.3, {packages}")]


def test_several_libraries_in_one_process_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, (found, means) = shown(monkeypatch, Library("/a/libnccl.so.2", "2.29.7"), Library("/b/libnccl.so.2"))
    assert found == "warning: 2 different ones in one process"
    assert means.startswith("torch and nccl4py may call different ones")


def test_under_an_observer_the_observed_one_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = Library("/a/libnccl.so.2", "2.32.3", is_observed=True)
    observer = Library("/cache/libnccl.so.2", "2.32.3", is_observer=True)
    assert shown(monkeypatch, observer, observed) == [
        ("/cache/libnccl.so.2", "the observer, in front of /a/libnccl.so.2"),
        ("/a/libnccl.so.2", "NCCL 2.32.3, observed"),
    ]


def test_one_beside_the_observer_is_said_to_be_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = Library("/a/libnccl.so.2", "2.32.3", is_observed=True)
    observer = Library("/cache/libnccl.so.2", "2.32.3", is_observer=True)
    *_, beside, (warning, _) = shown(monkeypatch, observer, observed, Library("/b/libnccl.so.2", "2.29.7"))
    assert beside == ("/b/libnccl.so.2", "NCCL 2.29.7, not observed")
    assert warning == "warning: 2 different ones in one process"


def test_imports_that_fail_are_a_line_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(environment: dict[str, str]) -> tuple[Library, ...]:
        raise MachineError("ImportError: libcudart.so.13")

    monkeypatch.setattr(libraries, "of_a_rank", refuse)
    (row,) = (row for row in examine().rows if row.what == "libnccl")
    assert (row.found, row.means) == (
        "unknown",
        "a process with the imports of a rank failed: ImportError: libcudart.so.13",
    )


def test_a_machine_without_nccl_says_why_nothing_can_be_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(out: Path | None) -> dict[str, str]:
        raise MachineError("no NCCL is installed")

    monkeypatch.setattr(build, "environment", refuse)
    monkeypatch.setattr(libraries, "of_a_rank", lambda environment: ())
    assert {"observer": "no, no NCCL is installed", "libnccl": "none"}.items() <= rows().items()


def test_the_json_lists_the_libraries_of_an_observed_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = nccl(tmp_path / "real", 23203)
    monkeypatch.setenv("LD_PRELOAD", str(real))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    found = symm(tmp_path / "here", "doctor", "--json", "-").data["libraries"]
    assert [(each["path"], each["version"]) for each in found if each["is_observed"]] == [(str(real), "2.32.3")]
    assert [each["is_observer"] for each in found if each["path"] != str(real)] == [True]
