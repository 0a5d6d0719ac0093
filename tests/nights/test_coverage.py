"""Coverage: each state counts once a draw, and what none reached is named."""

from __future__ import annotations

from harness.nights.coverage import Coverage
from harness.oracle.states.state import KINDS, State
from harness.oracle.states.universe import universe

WIDE, NARROW, IN_PLACE = (
    State("group", "width 4"),
    State("group", "width 2"),
    State("nearly", "source-changed: in place"),
)


def test_a_state_counts_once_a_draw() -> None:
    coverage = Coverage()
    assert coverage.take([WIDE, WIDE, NARROW]) == [WIDE, NARROW]
    assert coverage.take([WIDE]) == []
    assert coverage.covered("group") == {"width 4": 2, "width 2": 1}


def test_what_an_earlier_run_reached_is_not_new() -> None:
    coverage = Coverage([WIDE])
    assert coverage.take([WIDE, NARROW]) == [NARROW]
    assert coverage.new == 1


def test_what_no_draw_reached_is_named_by_kind() -> None:
    coverage = Coverage([NARROW])
    coverage.take([WIDE, IN_PLACE])
    never = coverage.as_data()["never"]
    assert tuple(never) == KINDS
    assert ("width 2" in never["group"], "width 4" in never["group"]) == (True, False)
    assert ("source-changed: in place" in never["nearly"], len(never["path"]) > 10) == (False, True)


def test_a_run_never_lists_what_it_could_not_draw() -> None:
    without_kernels = Coverage(reachable=universe(kernels=())).as_data()["never"]
    assert not [name for names in without_kernels.values() for name in names if "kernel" in name]
    by_kernels = Coverage(reachable=universe(library=False)).never("path")
    assert {"all_gather kernel kernel", "reduce library legacy"} <= {*by_kernels}
    assert not [name for name in by_kernels if name.startswith(("all_gather library", "all_gather copy-engine"))]
    some = Coverage(reachable=universe(library=False, kernels=("all_gather",))).never("path")
    assert {"all_gather kernel kernel", "broadcast library legacy"} <= {*some}
    assert not {"all_gather library legacy", "broadcast kernel kernel"} & {*some}
    without_graphs = Coverage(reachable=universe(graphs=False)).as_data()["never"]
    assert not [name for names in without_graphs.values() for name in names if "capture" in name or "replay" in name]
    assert "buffer: replay, replay" in Coverage().never("interleaving")


def test_plain_data_counts_all_states_and_the_new_ones() -> None:
    coverage = Coverage([NARROW])
    coverage.take([WIDE, NARROW])
    data = coverage.as_data()
    assert (data["states"], data["new_states"], data["covered"]["group"]) == (2, 1, {"width 4": 1, "width 2": 1})
