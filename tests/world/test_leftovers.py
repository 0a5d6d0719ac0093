"""What draws left in ranks is counted by kind and system, and says whether these ranks may run another draw."""

from __future__ import annotations

from harness.ipc.messages import Change
from harness.scenario.system import System
from harness.world.leftovers import PROCESS, Leftover, Leftovers

ONE, OTHER = System("one"), System("other")
UMASK, AGAIN = Change("umask", "0o022", "0o077"), Change("umask", "0o077", "0o007")
LOADED = Change("environment", "no A", "A=1", at_import=True)


def test_a_kind_is_kept_as_it_was_first_seen_and_counted_by_draws() -> None:
    left = Leftovers()
    left.note(ONE, {0: (UMASK,), 1: (UMASK,)})
    left.note(ONE, {1: (AGAIN,)})
    (kept,) = left
    assert kept == Leftover(kept.rank, "one", "triton", "umask", "0o022", "0o077", draws=2)


def test_each_system_answers_for_its_own() -> None:
    left = Leftovers()
    for system in (ONE, OTHER):
        left.note(system, {0: (UMASK,)})
    assert [each.pool for each in left] == ["one", "other"]


def test_ranks_with_a_change_may_not_run_another_draw() -> None:
    assert [Leftovers().note(ONE, changes) for changes in ({0: (UMASK,)}, {0: (LOADED,)}, {})] == [True, False, False]


def test_what_loading_a_system_changed_is_foreign_to_every_other_one() -> None:
    left = Leftovers()
    left.note(ONE, {0: (LOADED,)})
    assert (left.is_foreign(ONE), left.is_foreign(OTHER)) == (False, True)
    left.forget_ranks()
    assert not left.is_foreign(OTHER)


def test_a_death_belongs_to_the_system_of_the_draw_before() -> None:
    left = Leftovers()
    left.note(ONE, {})
    left.died({2: "exited with status 3"})
    (kept,) = left
    assert (kept.pool, kept.rank, kept.what, kept.new) == ("one", 2, PROCESS, "exited with status 3")
