"""The bench of registration: each design against the reference, and its figures beside their goals."""

from __future__ import annotations

from harness.studies.bench.registration import Held, Leaving, Measured

ROWS = (
    Leaving("snapshot-once", 64, False, 20e-6, 18e-6),
    Leaving("deferred", 64, False, 4e-6, 2e-6),
    Leaving("deferred", 64, True, 4e-6, 3e-6),
    Leaving("snapshot-once", 64, True, 99e-6, 300e-6),
)
MEASURED = Measured(ROWS, (Held("two", "deferred", 44 << 20),), {"substrate": "sim"})


def test_a_design_is_compared_with_the_reference_at_as_many_segments_and_the_same_history() -> None:
    assert [round(MEASURED.times_slower(row)) for row in ROWS] == [9, 1, 1, 100]


def test_the_table_shows_microseconds_and_the_goal_beside_them() -> None:
    assert [*MEASURED.leaving_rows()][:2] == [
        ("snapshot-once", "64", "", "20.0", "18.0", "9.0", "on a GPU at least 50 times"),
        ("deferred", "64", "", "4.0", "2.0", "1.0", "on a GPU under 3 µs"),
    ]


def test_memory_is_shown_in_mebibytes() -> None:
    assert [*MEASURED.held_rows()] == [("two", "deferred", "44")]


def test_every_row_keeps_its_keys_for_programs() -> None:
    (first, *_), held = MEASURED.as_data()["leaving"], MEASURED.as_data()["held"]
    assert first == {
        "pool": "snapshot-once", "segments": 64, "history": False, "seconds": 20e-6, "own": 18e-6, "times": 9.0,
    }  # fmt: skip
    assert held == [Held("two", "deferred", 44 << 20)]
