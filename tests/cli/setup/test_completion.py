"""Completion is there in every shell, and where no shell calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import shellingham

from harness.cli.setup import completion


@pytest.fixture
def called_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Sets which shell calls, none if it is empty, and what `SHELL` says."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def set_to(shell: str, login: str) -> None:
        def detect() -> tuple[str, str]:
            if not shell:
                raise shellingham.ShellDetectionFailure
            return shell, f"/bin/{shell}"

        monkeypatch.setattr(
            completion,
            "shellingham",
            SimpleNamespace(detect_shell=detect, ShellDetectionFailure=shellingham.ShellDetectionFailure),
        )
        monkeypatch.setenv("SHELL", login)

    return set_to


@pytest.mark.parametrize(
    ("shell", "login", "expected"),
    [
        ("zsh", "/bin/bash", "zsh"),
        ("sh", "/usr/bin/fish", "fish"),
        ("", "/bin/zsh", "zsh"),
        ("dash", "/bin/sh", "bash"),
        ("", "", "bash"),
    ],
)
def test_the_shell_is_the_one_that_calls_or_that_of_the_user_or_bash(
    called_from: Callable[[str, str], None], shell: str, login: str, expected: str
) -> None:
    called_from(shell, login)
    assert completion.shell() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "sh", ""])
def test_installing_writes_what_completes(
    called_from: Callable[[str, str], None], shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called_from(shell, "")
    assert completion.complete(["--install-completion"])
    assert any("_SYMM_COMPLETE" in path.read_text() for path in tmp_path.rglob("*symm*") if path.is_file())
    assert "completion is in" in capsys.readouterr().out


def test_showing_writes_to_stdout_and_nowhere_else(
    called_from: Callable[[str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called_from("", "")
    assert completion.complete(["--show-completion"])
    assert "complete -o default -F _symm_completion symm" in capsys.readouterr().out
    assert [*tmp_path.iterdir()] == []


def test_other_arguments_are_not_completion() -> None:
    assert not completion.complete(["fuzz", "--show-completion"])
    assert not completion.complete([])
