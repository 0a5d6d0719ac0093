"""`symm --version`, and `symm` alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.tools.commands import forked, forked_code


def test_the_version_has_what_results_depend_on(tmp_path: Path) -> None:
    run = forked(tmp_path, "--version")
    assert (run.status, run.err) == (0, "")
    first, versions, substrate = run.out.splitlines()
    assert re.fullmatch(r"symm \d+\.\d+\.\d+", first)
    assert [name for name in ("Python", "torch", "Triton", "NCCL", "Hypothesis") if f"{name} " not in versions] == []
    assert substrate.startswith("substrate sim (no GPU is visible")


def test_the_version_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom harness.cli import main\nsys.argv = ['symm', '--version']\n"
        "try:\n    main.main()\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)\n"
    )
    assert "torch" not in sys.modules or forked_code(tmp_path, code).status == 0


def test_symm_alone_prints_help_and_ends_as_a_command_that_is_missing(tmp_path: Path) -> None:
    run = forked(tmp_path)
    assert run.status == 2
    assert [name for name in ("fuzz", "replay", "doctor", "--version") if name not in run.out] == []
    assert run.err == "symm: no command was given; symm COMMAND --help shows the options of one\n"


def test_an_option_of_few_choices_is_answered_by_the_one_that_was_meant(tmp_path: Path) -> None:
    assert "; did you mean explicit?" in forked(tmp_path, "fuzz", "--sites", "explict").err
