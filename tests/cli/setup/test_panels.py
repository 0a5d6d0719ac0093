"""Help: options in groups, within 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from harness.cli.main import app
from harness.cli.setup import panels, settings
from tests.tools.commands import forked


def test_every_option_of_every_command_is_in_a_group() -> None:
    command = typer.main.get_command(app)
    panels.arrange(command)
    found = [
        (*path, name, getattr(each, "rich_help_panel", None))
        for path, options in settings.names_of(command).items()
        for name, each in options.items()
    ]
    assert [each for each in found if each[-1] not in panels.GROUPS] == []


def test_no_option_is_in_two_groups() -> None:
    every = [name for names in panels.GROUPS.values() for name in names]
    assert len(every) == len({*every})


@pytest.mark.parametrize("command", [("fuzz",), ("replay",), ("bench", "collectives")])
def test_help_fits_into_80_columns_and_names_no_bool(tmp_path: Path, command: tuple[str, ...]) -> None:
    run = forked(tmp_path, *command, "--help")
    assert run.status == 0
    assert max(map(len, run.out.splitlines())) <= 80
    assert [line for line in run.out.splitlines() if "<bool>" in line and "--help" not in line] == []
