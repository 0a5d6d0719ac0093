"""Pools that have no teardown, and pools that call NCCL by themselves, where there is no NCCL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import MachineError, PluginError, UsageError
from harness.machine.inherited import import_path, inherited
from harness.scenario.steps import Recreate, Release
from harness.system.check import observed, prepare
from harness.trace.events import Leaked, SegmentAllocated
from harness.world.world import World
from tests.tools.designs import RECREATED, TWO_GROUPS, allocate, events, found, gather, run

HERE = "tests.tools.engines:"
AGAIN = (allocate("a", "tp"), gather("a", "tp"), Release("a"), Recreate("tp"), allocate("b", "tp"), gather("b", "tp"))


@pytest.mark.parametrize("steps", [TWO_GROUPS, RECREATED, AGAIN], ids=["two groups", "recreated", "released"])
def test_a_pool_without_a_teardown_leaks_nothing(ranks: World, steps: tuple[object, ...]) -> None:
    assert found(ranks, f"{HERE}Forever", steps) == []  # type: ignore[arg-type]


def test_a_draw_after_a_pool_without_a_teardown_finds_nothing_of_it(ranks: World) -> None:
    first, second = (run(ranks, *TWO_GROUPS, pool=f"{HERE}Forever") for _ in range(2))
    assert first.traces == second.traces
    assert not any(leaked for each in events(second, Leaked) for leaked in each)


def test_on_the_simulation_a_pools_stand_in_runs_in_its_place(ranks: World) -> None:
    stands_in = run(ranks, *TWO_GROUPS, pool=f"{HERE}Modelled")
    itself = run(ranks, *TWO_GROUPS, pool="shared-at-exit")
    assert stands_in.traces == itself.traces
    assert {event.pool for each in events(stands_in, SegmentAllocated) for event in each} == {"shared"}


def test_on_the_simulation_a_pool_that_needs_nccl_is_refused_by_name(ranks: World) -> None:
    with pytest.raises(
        UsageError, match=r"pool 'tests\.tools\.engines:Engine' calls NCCL by itself, and the simulation"
    ):
        run(ranks, *TWO_GROUPS, pool=f"{HERE}Engine")


def test_on_the_simulation_a_pool_cannot_bring_a_communicator(ranks: World) -> None:
    with pytest.raises(UsageError, match="brings a communicator at 0xbeef, and substrate sim has no NCCL"):
        run(ranks, *TWO_GROUPS, pool=f"{HERE}Brings")


def test_a_pool_is_observed_where_its_class_says_so() -> None:
    names = [f"{HERE}{name}" for name in ("Forever", "Engine", "Modelled")]
    assert observed("deferred", None, *names) == {names[1]: "", names[2]: "shared-at-exit"}


def test_a_pool_is_prepared_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREPARED", str(tmp_path / "by"))
    prepare([f"{HERE}Prepared", f"{HERE}Engine"], inherited({"PYTHONPATH": import_path()}))
    assert int((tmp_path / "by").read_text()) != os.getpid()


def test_a_pool_that_cannot_be_prepared_ends_the_command_with_its_last_line() -> None:
    with pytest.raises(MachineError, match=r"engines:Unprepared' cannot be prepared: RuntimeError: no compiler here$"):
        prepare([f"{HERE}Unprepared"], inherited({"PYTHONPATH": import_path()}))


@pytest.mark.parametrize("said", ["observed = 1", "forever = 'yes'", "fallback = None"])
def test_what_a_pool_says_of_itself_has_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    body = f"from tests.tools.engines import Forever\nclass Pool(Forever):\n    {said}\n    def close(self): ...\n"
    (tmp_path / "says_wrongly.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "says_wrongly", raising=False)
    with pytest.raises(PluginError, match=rf"says {said.split(maxsplit=1)[0]} = .*, which is no"):
        observed("says_wrongly:Pool")
