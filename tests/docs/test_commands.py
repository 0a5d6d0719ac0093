"""Every `symm` command that the docs show is one that there is, with options that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli.main import app
from tests.docs import prose

SHOWN = re.compile(r"\bsymm ((?:[a-z]+)(?: (?:collectives|draws|registration))?)\b([^`\n|]*)")


def commands() -> dict[str, set[str]]:
    """Options by command."""
    found: dict[str, set[str]] = {}

    def visit(command: Any, name: str) -> None:
        found[name] = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for each, below in getattr(command, "commands", {}).items():
            visit(below, f"{name} {each}".strip())

    visit(typer.main.get_command(app), "")
    return found


COMMANDS = commands()


def wrong(text: str) -> list[str]:
    """Commands as code that do not exist, or have no such option."""
    blocks = re.findall(r"^ *```.*?^ *```$", text, re.MULTILINE | re.DOTALL)
    code = [*prose.CODE.findall(prose.FENCE.sub("", text)), *"\n".join(blocks).split("\n")]
    shown = [match for each in code for match in SHOWN.finditer(each.split("#")[0])]
    return [
        match[0]
        for match in shown
        if match[1] not in COMMANDS or set(re.findall(r"--[\w-]+", match[2].split(" -- ")[0])) - COMMANDS[match[1]]
    ]


@pytest.mark.parametrize("path", prose.pages(), ids=lambda path: str(path.relative_to(prose.ROOT)))
def test_every_command_of_a_page_exists(path: Path) -> None:
    assert not wrong(path.read_text())


@pytest.mark.parametrize("text", ["`symm hunt`", "`symm fuzz --drawz 3`", "```\n$ symm bench draws --tokens 3\n```"])
def test_a_command_that_is_gone_is_seen(text: str) -> None:
    assert wrong(text)


def test_commands_that_exist_are_taken() -> None:
    assert not wrong("`symm bench draws --draws 60`, `symm fuzz --pool NAME --json -`\n```\nsymm doctor\n```\n")


@pytest.mark.parametrize("path", prose.pages(), ids=lambda path: str(path.relative_to(prose.ROOT)))
def test_every_seed_that_a_page_replays_by_name_ships(path: Path) -> None:
    named = re.findall(r"The seed is `([^`]+)`|symm replay ([a-z0-9-]{6,})\b(?![./])", path.read_text())
    shipped = {seed.stem for seed in (prose.ROOT / "topologies" / "seeds").glob("*.json")}
    assert {first or second for first, second in named} - {"symm-seeds", "topologies"} <= shipped


ELSEWHERE = {
    *("--native", "--nonblocking", "--no-deps", "--dist"),
    *("--full-trace", "--hypothesis-seed", "--hypothesis-show-statistics"),
}
"""Options of py-spy, pip, pytest and its plugins that pages name."""


@pytest.mark.parametrize("path", prose.pages(), ids=lambda path: str(path.relative_to(prose.ROOT)))
def test_every_option_that_is_named_alone_exists(path: Path) -> None:
    plugin = set(re.findall(r'"(--symm-[a-z-]+)"', (prose.HOUSE / "plugin" / "hooks.py").read_text()))
    known = set().union(*COMMANDS.values()) | plugin | ELSEWHERE
    code = prose.CODE.findall(prose.FENCE.sub("", path.read_text()))
    assert {option for each in code if each.startswith("--") for option in re.findall(r"--[a-z-]+", each)} <= known
