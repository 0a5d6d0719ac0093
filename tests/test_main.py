"""The command's first moments: what a shell may have taken from it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.tools.commands import ALONE
from tests.tools.processes import left, new_mark

FUZZ = "symm fuzz --draws 2 --world 2 --substrate sim"
LOWEST = """
import os, sys, types
from pathlib import Path
from harness import __main__ as command

cli = types.ModuleType("harness.cli.main")
cli.main = lambda: Path("lowest").write_text(str(os.open(os.devnull, os.O_RDONLY)))
sys.modules[cli.__name__] = cli
command.main()
"""
"""In place of the command line, what says which number the first file gets that it opens."""


def shell(command: str, folder: Path) -> tuple[int, str, list[int]]:
    """The end of a shell command: its status, its last words on stderr, and the processes that are left."""
    mark = new_mark()
    environment = {**os.environ, **ALONE, **mark}
    ended = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stderr, left(mark, seconds=2)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_given_to_nothing_that_the_command_opens(tmp_path: Path, closed: str) -> None:
    assert shell(f"python -c '{LOWEST}' {closed}", tmp_path) == (0, "", [])
    assert (tmp_path / "lowest").read_text() == "3"


def test_with_all_descriptors_closed_draws_run_as_ever(tmp_path: Path) -> None:
    assert shell(f"{FUZZ} --json found.json <&- >&- 2>&-", tmp_path) == (0, "", [])
    assert json.loads((tmp_path / "found.json").read_bytes())["draws"] == 2


def test_a_folder_that_is_gone_is_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ended = shell(f"cd gone && rmdir ../gone && {FUZZ}", tmp_path)
    assert ended == (2, "symm: the working directory is not there any more\n", [])
