"""Help: options in groups, within 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from harness.cli.main import app
from harness.cli.setup import panels, settings
from tests.tools.commands import forked


def test_options_of_fuzz_are_in_groups() -> None:
    command = typer.main.get_command(app)
    panels.arrange(command)
    found = {each.rich_help_panel for each in settings.names_of(command)["fuzz",].values()}
    assert found >= {"How much", "Layouts", "System under test", "Programs", "How it runs", "Results"}


def test_no_option_is_in_two_groups() -> None:
    every = [name for names in panels.GROUPS.values() for name in names]
    assert len(every) == len({*every})


@pytest.mark.parametrize("command", [("fuzz",), ("replay",), ("bench", "collectives")])
def test_help_fits_into_80_columns_and_names_no_bool(tmp_path: Path, command: tuple[str, ...]) -> None:
    run = forked(tmp_path, *command, "--help")
    assert run.status == 0
    assert max(map(len, run.out.splitlines())) <= 80
    assert [line for line in run.out.splitlines() if "<bool>" in line and "--help" not in line] == []
