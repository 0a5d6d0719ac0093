"""The plug-in that the page shows runs as shown, and `symm check` says what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs import prose
from tests.tools.commands import forked

PAGE = (prose.ROOT / "docs" / "plug-ins.md").read_text()
WRONG = """from contextlib import contextmanager


class MyPool:
    def __init__(self, context):
        self.pool = context.pool("mine")

    @contextmanager
    def use(self, group):
        with self.pool.use():
            yield

    def wants(self, group):
        return True
"""


def test_the_kernels_of_the_page_run_as_shown(tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    folder.mkdir()
    (source,) = re.findall(r"into `mine.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "mine.py").write_text(source)
    (commands,) = re.findall(r"```\n(symm check mine:Pushes\n.*?)```", PAGE, re.DOTALL)
    for command in commands.splitlines():
        run = forked(folder, *command.split()[1:])
        assert run.status == 0, run.out + run.err


def test_a_check_says_what_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "mine.py").write_text(WRONG)
    (shown,) = re.findall(r"```\n\$ symm check mine:MyPool\n(.*?)```", PAGE, re.DOTALL)
    assert forked(folder, "check", "mine:MyPool").out == shown
