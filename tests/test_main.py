"""The command's first moments: what a shell may have taken from it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.tools.commands import ALONE
from tests.tools.processes import left, new_mark

SIM = "--substrate sim"
FUZZ = f"symm fuzz --draws 2 --world 2 {SIM}"
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


def test_a_thread_of_a_plug_in_does_not_keep_the_command(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text("import threading\nthreading.Timer(600, print).start()\n")
    said = "symm: pool 'busy:Pool': module 'busy' has no 'Pool'\n"
    assert shell("symm fuzz --pool busy:Pool", tmp_path) == (2, said, [])


@pytest.mark.parametrize("command", ["symm topologies", "symm topologies --json -"])
def test_a_pipe_whose_reader_is_gone_ends_a_command_in_silence(tmp_path: Path, command: str) -> None:
    assert shell(f"({command}; echo $? > status) | true", tmp_path) == (0, "", [])
    assert (tmp_path / "status").read_text() == "141\n"


def test_json_reaches_a_pipe_that_is_named_by_its_descriptor(tmp_path: Path) -> None:
    assert shell("symm show qwen3-32b-tp2 --json /dev/stdout | tail -n 1 > shown", tmp_path) == (0, "", [])
    assert (tmp_path / "shown").read_text() == "}\n"


def test_json_on_stdout_is_whole_though_nobody_reads_stderr(tmp_path: Path) -> None:
    replay = f"symm replay wrong-owner-of-a-shared-pool {SIM} --json -"
    assert shell(f"({replay} 2>&1 > found.json; echo $? > status) | head -n 1 > first", tmp_path) == (0, "", [])
    assert json.loads((tmp_path / "found.json").read_bytes())["failed"] == 1
    assert (tmp_path / "status").read_text() == "141\n"


def test_what_completes_a_command_in_a_shell_exits_with_0(tmp_path: Path) -> None:
    words = '_SYMM_COMPLETE=complete_bash COMP_WORDS="symm topo" COMP_CWORD=1'
    assert shell(f"{words} symm > shown", tmp_path) == (0, "", [])
    assert "topologies" in (tmp_path / "shown").read_text()


def test_a_full_disk_under_stdout_is_named_in_one_sentence(tmp_path: Path) -> None:
    said = "symm: cannot write to stdout: No space left on device\n"
    assert shell("symm topologies > /dev/full", tmp_path) == (2, said, [])


def test_a_wrong_request_that_nobody_can_be_told_of_exits_with_2(tmp_path: Path) -> None:
    assert shell("symm show nowhere.json 2> /dev/full", tmp_path) == (2, "", [])


def test_stdout_of_another_encoding_costs_no_finding(tmp_path: Path) -> None:
    seed = f"symm replay wrong-owner-of-a-shared-pool {SIM} > shown"
    assert shell(f"PYTHONIOENCODING=latin-1 {seed}", tmp_path) == (1, "", [])
    assert b"wrong-owner" in (tmp_path / "shown").read_bytes()


def test_a_folder_that_is_gone_is_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ended = shell(f"cd gone && rmdir ../gone && {FUZZ}", tmp_path)
    assert ended == (2, "symm: the working directory is not there any more\n", [])
