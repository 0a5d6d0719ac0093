"""Children of a process, and those that fall to it, are ended and named.

All of it runs in a process of its own, as the tests' own children have to live.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, subprocess, time
from harness.rank.state import children
children.adopt_orphans()
{start}
print(children.has_any(), *children.end({spared}), sep="|")
print(children.has_any())
"""
DAEMON = 'subprocess.run(["sh", "-c", "setsid sleep 600 & sleep 0.1"])'


def run(start: str, spared: str = "()") -> list[str]:
    command = [sys.executable, "-c", SCRIPT.format(start=start, spared=spared)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("start", "found"),
    [
        ("pass", "False"),
        ('kept = subprocess.Popen(["sleep", "600"]); time.sleep(0.3)', "True|sleep 600"),
        (DAEMON, "True|sleep 600"),
        ('kept = subprocess.Popen(["true"]); time.sleep(0.3)', "True"),
    ],
    ids=["none", "child", "daemon", "ended"],
)
def test_children_are_ended_and_named(start: str, found: str) -> None:
    assert run(start) == [found, "False"]


def test_a_child_that_is_spared_lives_on() -> None:
    assert run('kept = subprocess.Popen(["sleep", "2"])', "[kept.pid]") == ["True", "True"]
