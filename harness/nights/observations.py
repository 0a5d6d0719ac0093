"""One observation a draw, in the format in which Hypothesis writes those of its own tests, for tools such as Tyche.

Invariant: a line is one whole JSON object with the fields of Hypothesis's test cases; its metadata has no more than
what a draw knows. Lines of several processes in one file do not mix.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from harness.campaign import seeds
from harness.errors import UsageError
from harness.oracle.judge import Verdict
from harness.oracle.states.state import State
from harness.trace.draw import Draw

PROPERTY = "symm fuzz"
VACUOUS = "the draw was vacuous"


class Observations:
    """Appends to `<date>_testcases.jsonl` in `folder`, where Hypothesis would name it so."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._began = folder, time.time()

    def take(self, draw: Draw, states: Sequence[State], verdict: Verdict, seconds: float, how: str) -> None:
        """Write the observation of a draw. Raises `UsageError` where that is impossible."""
        line = msgspec.json.encode(self._observation(draw, states, verdict, seconds, how)) + b"\n"
        path = self._folder / f"{date.today().isoformat()}_testcases.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError as error:
            raise UsageError(f"cannot write observations to {path}: {error.strerror}") from error

    def _observation(
        self, draw: Draw, states: Sequence[State], verdict: Verdict, seconds: float, how: str
    ) -> dict[str, Any]:
        scenario = draw.scenario
        first = verdict.findings[0] if verdict.findings else None
        status = "failed" if first else "gave_up" if verdict.is_vacuous else "passed"
        return {
            "type": "test_case",
            "run_start": self._began,
            "property": PROPERTY,
            "status": status,
            "status_reason": str(first) if first else VACUOUS if verdict.is_vacuous else "",
            "representation": repr(scenario),
            "arguments": {
                "topology": scenario.topology.name,
                "system": msgspec.to_builtins(scenario.system),
                "steps": [step.kind for step in scenario.steps],
                "seed": scenario.seed,
            },
            "how_generated": how,
            "features": {"world": scenario.world, "steps": len(scenario.steps), **{str(state): "" for state in states}},
            "coverage": None,
            "timing": {"execute:test": seconds},
            "metadata": {
                "traceback": None,
                "reproduction_decorator": None,
                "sys.argv": sys.argv,
                "os.getpid()": os.getpid(),
                "imported_at": self._began,
            },
        }


def check_folder(path: Path) -> None:
    """Raise `UsageError` now if observations could not be written in `path` later. Leaves nothing."""
    seeds.check_folder(path, "observations directory")
