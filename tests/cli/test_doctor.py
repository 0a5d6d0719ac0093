"""`symm doctor`: what this machine can run, and why not more."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli.doctor import examine
from harness.machine import profiler
from tests.tools.commands import forked


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
