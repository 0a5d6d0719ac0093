"""`symm doctor`: what this machine can run, and why not more."""

from __future__ import annotations

from pathlib import Path

from tests.tools.commands import symm


def test_doctor_says_which_substrate_a_run_would_get(tmp_path: Path) -> None:
    checks = symm(tmp_path, "doctor", "--json", "-").data["checks"]
    auto = next(check for check in checks if check["what"] == "substrate auto")
    assert (auto["found"], auto["means"]) == ("sim", "no GPU is visible")


def test_doctor_finds_nothing_wrong_with_a_machine_without_gpu(tmp_path: Path) -> None:
    assert symm(tmp_path, "doctor").status == 0
