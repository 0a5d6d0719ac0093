"""Defaults from files and the environment: which one counts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli.main import app
from harness.cli.setup import completion, settings
from harness.errors import UsageError
from harness.machine import seats
from harness.machine.observer import build
from harness.nights import shard
from harness.plugin import workers
from harness.world.hosts import launch
from tests.tools.commands import forked, forked_code
from tests.tools.folders import sentence


def applied(folder: Path, **environment: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """The defaults of all options afterwards, by command."""
    command = typer.main.get_command(app)
    settings.apply(command, folder, environment)
    return {
        path: {name: each.default for name, each in parameters.items()}
        for path, parameters in settings.names_of(command).items()
    }


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_a_table_sets_defaults_of_every_command_that_has_the_option(tmp_path: Path) -> None:
    found = applied(write(tmp_path, "[tool.symm]\nseeds-dir = 'kept'\n"))
    assert [found[name,]["seeds-dir"] for name in ("fuzz", "matrix", "faults", "agree")] == ["kept"] * 4


def test_a_table_of_a_command_sets_those_of_it_alone(tmp_path: Path) -> None:
    found = applied(write(tmp_path, "[tool.symm]\ndraws = 5\n[tool.symm.fuzz]\ndraws = 7\n"))
    assert (found["fuzz",]["draws"], found["agree",]["draws"]) == ("7", "5")


def test_a_command_below_a_command_has_a_table_too(tmp_path: Path) -> None:
    found = applied(write(tmp_path, "[tool.symm.bench.draws]\nspawns = 2\n"))
    assert found["bench", "draws"]["spawns"] == "2"


def test_the_nearest_file_with_the_table_counts(tmp_path: Path) -> None:
    write(tmp_path, "[tool.symm]\ndraws = 1\n")
    write(tmp_path / "near", "[tool.symm]\ndraws = 2\n")
    inside = write(tmp_path / "near" / "inside", "[tool.other]\n")
    assert applied(inside)["fuzz",]["draws"] == "2"


def test_the_environment_comes_before_the_file_and_a_variable_of_the_command_before_a_general_one(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, "[tool.symm.fuzz]\ndraws = 1\nworld = 2\n")
    found = applied(folder, SYMM_DRAWS="3", SYMM_AGREE_DRAWS="4")
    assert (found["fuzz",]["draws"], found["agree",]["draws"], found["fuzz",]["world"]) == ("3", "4", "2")


def test_lists_are_lists_and_flags_are_words(tmp_path: Path) -> None:
    folder = write(tmp_path, "[tool.symm]\ntopology = ['a', 'b']\nhazard = 'deny'\ngraphs = true\n")
    fuzz = applied(folder, SYMM_EVIDENCE="log,digests", SYMM_DRY="no", SYMM_SAME_ORDER="on")["fuzz",]
    assert (fuzz["topology"], fuzz["hazard"], fuzz["evidence"]) == (["a", "b"], ["deny"], ["log", "digests"])
    assert (fuzz["graphs"], fuzz["dry"], fuzz["same-order"]) == (True, False, True)


def test_a_seed_keeps_its_system_unless_a_table_of_its_command_says_otherwise(tmp_path: Path) -> None:
    general = write(tmp_path / "general", "[tool.symm]\npool = 'per-group'\n")
    own = write(tmp_path / "own", "[tool.symm.replay]\npool = 'per-group'\n")
    assert [applied(folder)["replay",]["pool"] for folder in (general, own)] == [None, ["per-group"]]
    assert applied(general, SYMM_POOL="deferred")["bisect",]["pool"] is None


WRONG = {
    "[tool.symm]\ndrwas = 3\n": r"pyproject.toml: \[tool.symm\] has 'drwas', .*did you mean draws\?",
    "[tool.symm.fuz]\ndraws = 3\n": r"\[tool.symm\] has 'fuz', which is no command; did you mean fuzz\?",
    "[tool.symm.replay]\nflow = 'all'\n": r"\[tool.symm.replay\] has 'flow'",
    "[tool.symm]\nallow-plugins = true\n": "only be given on the command line",
    "[tool.symm]\ngraphs = 3\n": "graphs = 3 is neither true nor false",
    "[tool.symm]\ndraws = [3, 4]\n": "is no single value",
    "[tool]\nsymm = 3\n": "tool.symm is no table",
    "[tool.symm\n": "pyproject.toml: ",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_that_is_wrong_is_one_error_that_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=WRONG[text]):
        applied(write(tmp_path, text))


def test_a_variable_that_is_no_option_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"SYMM_DRAWZ names no option; did you mean SYMM_DRAWS\?"):
        applied(tmp_path, SYMM_DRAWZ="3")


READ = {
    *(launch.TOKEN, launch.HOST_ID, seats.VARIABLE, workers.VARIABLE, completion.VARIABLE),
    *(build.OUT, build.STACKS, build.HISTORY_WANTED, shard.SHARDS, *shard.VARIABLES),
}
"""All that the harness reads of the environment beside options."""


@pytest.mark.parametrize("name", sorted(READ))
def test_variables_of_the_harness_itself_are_no_options(tmp_path: Path, name: str) -> None:
    assert applied(tmp_path, **{name: "x"}) == applied(tmp_path)


def test_an_option_whose_name_begins_like_such_a_variable_is_one(tmp_path: Path) -> None:
    assert applied(tmp_path, SYMM_TOKENS="padded")["fuzz",]["tokens"] == "padded"


def test_every_option_can_be_named_by_a_variable_that_means_one_thing() -> None:
    known = settings.names_of(typer.main.get_command(app))
    general = {settings._variable(name) for parameters in known.values() for name in parameters}
    own = {settings._variable(*path, name) for path, parameters in known.items() if path for name in parameters}
    assert not general & own


def test_the_command_line_comes_first_and_help_says_where_a_default_comes_from(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write(folder, "[tool.symm.fuzz]\ndraws = 4\nworld = 2\ndry = true\nsubstrate = 'sim'\n")
    data = forked(folder, "fuzz", "--draws", "2", "--json", "-").data
    assert data["draws"] == 2
    shown = " ".join(forked(folder, "fuzz", "--help").out.replace("│", " ").split())
    assert "(From tool.symm.fuzz in " in shown
    assert "[default: 4]" in shown


def test_doctor_lists_the_defaults_and_where_they_come_from(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "[tool.symm]\ndraws = 4\n")
    (found,) = forked(folder, "doctor", "--json", "-").data["defaults"]
    assert (found["command"], found["option"], found["value"]) == ("", "draws", 4)
    assert found["source"].startswith("tool.symm in ")


def test_a_default_of_the_wrong_kind_is_refused_with_its_source(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "[tool.symm]\ndraws = 'many'\n")
    run = forked(folder, "fuzz")
    assert (run.status, "tool.symm in " in sentence(run)) == (2, True)


def test_a_topology_on_the_command_line_takes_the_place_of_one_in_the_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "[tool.symm]\ntopology = 'nowhere'\ndry = true\nworld = 2\n")
    assert forked(folder, "fuzz", "qwen3-32b-tp2", "--draws", "2").status == 0
    assert forked(folder, "fuzz", "--draws", "2").status == 2


def test_completing_a_command_reads_no_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "[tool.symm]\ndrwas = 4\n")
    code = (
        "import os, sys\nfrom harness.cli import main\n"
        "os.environ.update(_SYMM_COMPLETE='complete_bash', COMP_WORDS='symm fu', COMP_CWORD='1')\n"
        "sys.argv = ['symm']\nmain.main()\n"
    )
    assert "fuzz" in forked_code(folder, code).out
