"""Leases: what each worker gets of a machine's GPUs, who gets it, and what those who get nothing are shown."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.clock import Clock
from harness.errors import MachineError
from harness.machine import seats as seats_module
from harness.machine.leases import Lease, Patience, Share, lease, most_workers, share, take_turn
from harness.machine.seats import RANKS_PER_GPU, Seats, seat
from tests.tools.clock import FakeClock
from tests.tools.lessee import first_line, lessee, started

A, B, C = "GPU-a", "GPU-b", "GPU-c"
FOUR = Share(1, 4)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(seats_module.VARIABLE, str(tmp_path / "leases"))
    return tmp_path / "leases"


def now(wanted: Share, *gpus: str, number: int = 0) -> Lease:
    """A lease that is had at once, or not at all."""
    return lease(wanted, gpus, number, Patience(0, pytest.fail))


def taken(*gpus: str) -> list[str]:
    """Those of these GPUs of which a seat is held."""
    seats = Seats()
    return [gpu for gpu in gpus if seats.take_any(gpu, RANKS_PER_GPU) is None]


# what each worker gets


@pytest.mark.parametrize(
    ("world", "workers", "visible", "gets"),
    [
        (4, 1, 1, Share(1)),
        (4, 1, 8, Share(4)),
        (4, 2, 8, Share(4)),
        (4, 4, 8, Share(2)),
        (4, 3, 8, Share(2)),
        (4, 8, 8, Share(1)),
        (2, 1, 8, Share(2)),
        (32, 1, 2, Share(2)),
        (4, 2, 1, Share(1, 4)),
        (4, 4, 1, Share(1, 4)),
        (1, 16, 1, Share(1, 1)),
        (8, 3, 2, Share(1, 8)),
    ],
)
def test_workers_get_whole_gpus_or_share_one(world: int, workers: int, visible: int, gets: Share) -> None:
    assert share(world, workers, visible) == gets


@pytest.mark.parametrize(
    ("world", "workers", "visible", "sum_"),
    [
        (17, 1, 1, "17 ranks needs 17 seats; with 1 worker on 1 GPU each gets 1 GPU, and 1 × 16 = 16 seats"),
        (40, 2, 4, "40 ranks needs 40 seats; with 2 workers on 4 GPUs each gets 2 GPUs, and 2 × 16 = 32 seats"),
        (4, 5, 1, "5 workers do not fit on 1 GPU of 16 seats: the limit is 1 × 4 = 4 worlds of 4 ranks"),
        (9, 3, 2, "3 workers do not fit on 2 GPUs of 16 seats: the limit is 2 × 1 = 2 worlds of 9 ranks"),
        (17, 2, 1, "2 workers do not fit on 1 GPU of 16 seats: the limit is 1 × 0 = 0 worlds of 17 ranks"),
    ],
)
def test_what_can_never_be_had_is_refused_with_the_arithmetic(
    world: int, workers: int, visible: int, sum_: str
) -> None:
    with pytest.raises(MachineError) as refused:
        share(world, workers, visible)
    assert sum_ in str(refused.value)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 8))
def test_the_shares_of_all_workers_fit_the_machine(world: int, workers: int, visible: int) -> None:
    try:
        each = share(world, workers, visible)
    except MachineError:
        return
    per_gpu = 1 if each.is_whole else RANKS_PER_GPU // each.seats
    assert workers * each.gpus <= per_gpu * visible


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 8))
def test_a_share_seats_the_world(world: int, workers: int, visible: int) -> None:
    try:
        each = share(world, workers, visible)
    except MachineError:
        return
    assert each.gpus * each.seats >= world


# how many workers


@pytest.mark.parametrize(
    ("world", "visible", "cores", "workers"),
    [
        pytest.param(4, 8, 64, 2, id="a GPU for every rank"),
        pytest.param(4, 4, 64, 1, id="just enough GPUs"),
        pytest.param(2, 8, 2, 4, id="ranks with GPUs of their own, few cores"),
        pytest.param(4, 1, 64, 4, id="one GPU, as many as have seats"),
        pytest.param(3, 2, 64, 10, id="seats that are no whole world are left"),
        pytest.param(6, 5, 64, 10, id="a world does not span shared GPUs"),
        pytest.param(24, 3, 64, 1, id="worlds of several GPUs each"),
        pytest.param(32, 4, 64, 2, id="two worlds of two GPUs each"),
        pytest.param(4, 1, 3, 3, id="as many as cores"),
        pytest.param(17, 1, 64, 1, id="too large a world, which is refused later"),
    ],
)
def test_auto_starts_as_many_workers_as_have_room(world: int, visible: int, cores: int, workers: int) -> None:
    assert most_workers(world, visible, cores) == workers


@given(st.integers(1, 64), st.integers(1, 8))
def test_as_many_workers_as_auto_starts_are_never_refused(world: int, visible: int) -> None:
    if world <= visible * RANKS_PER_GPU:
        share(world, most_workers(world, visible, 128), visible)


# which GPUs


def test_a_whole_gpu_is_all_its_seats() -> None:
    with ExitStack() as stack:
        stack.callback(now(Share(1), A).close)
        assert [Seats().take([seat(A, number)]) for number in range(RANKS_PER_GPU)] == [None] * RANKS_PER_GPU


def test_whole_gpus_are_taken_by_uuid_and_given_in_the_order_of_cuda() -> None:
    assert now(Share(2), C, B, A).gpus == (B, A)


def test_a_gpu_that_is_not_listed_is_not_touched(folder: Path) -> None:
    now(Share(1), A).close()
    assert {path.name[:5] for path in folder.iterdir()} == {A, "gate."}


def test_a_lease_shows_its_gpus_and_seats() -> None:
    assert str(now(Share(2), A, B)) == "GPU-a (16 of 16 seats), GPU-b (16 of 16 seats)"


def test_a_gpu_that_is_taken_is_passed_over() -> None:
    first, second = now(Share(1), A, B), now(Share(1), A, B)
    assert (first.gpus, second.gpus) == ((A,), (B,))


def test_one_free_seat_too_few_is_no_whole_gpu() -> None:
    held = Seats().take([seat(A, 15)])
    assert (held is not None, now(Share(1), A, B).gpus) == (True, (B,))


def test_of_two_gpus_none_is_held_where_one_is_taken() -> None:
    first = now(Share(1), B)
    with pytest.raises(MachineError):
        now(Share(2), A, B)
    assert (first.gpus, taken(A, B)) == ((B,), [B])


def test_workers_that_share_spread_over_gpus_by_uuid() -> None:
    held = [now(FOUR, C, A, B, number=number) for number in range(6)]
    assert [lease.gpus for lease in held] == [(A,), (B,), (C,)] * 2


def test_a_gpu_without_room_is_passed_over_by_those_who_share() -> None:
    held = [now(Share(1), A), *(now(FOUR, A, B, number=number) for number in (0, 1, 2, 3))]
    assert [lease.gpus for lease in held[1:]] == [(B,)] * 4


def test_as_many_share_a_gpu_as_there_are_seats() -> None:
    held = [now(FOUR, A) for _ in range(4)]
    with pytest.raises(MachineError):
        now(FOUR, A)
    assert len(held) == 4


def test_a_shared_gpu_is_not_leased_whole() -> None:
    held = now(FOUR, A)
    assert (held.gpus, now(Share(1), A, B).gpus) == ((A,), (B,))


def test_seats_that_are_given_back_are_leased_again() -> None:
    now(Share(2), A, B).close()
    assert now(Share(2), A, B).gpus == (A, B)


# waiting


def waiting(seconds: float, sleep: Callable[[float], object], show: Callable[[str], object] = str) -> Patience:
    """Patience by a clock that moves only while somebody waits; `sleep` is what happens meanwhile."""
    time = FakeClock()

    def pass_by(pause: float) -> None:
        time.clock.sleep(pause)
        sleep(pause)

    return Patience(seconds, show, Clock(time.clock.now, pass_by))  # type: ignore[arg-type]


def test_a_lease_is_had_when_its_holder_is_killed() -> None:
    with lessee(A) as holder:
        first_line(holder)

        def kill(_: float) -> None:
            holder.kill()
            holder.wait()

        assert lease(Share(1), [A], 0, waiting(30, kill)).gpus == (A,)


def test_who_waits_shows_once_for_whom() -> None:
    lines: list[str] = []
    with lessee(A) as holder:
        first_line(holder)
        with pytest.raises(MachineError):
            lease(Share(1), [A], 0, waiting(0.4, lambda _: None, lines.append))
    assert [line.partition(" (")[0] for line in lines] == [
        f"waiting up to 0.4 s for 1 whole GPU among GPU-a, held by pid {holder.pid}"
    ]


def test_when_time_is_up_the_gpus_and_their_holder_are_named() -> None:
    with lessee(A) as holder:
        first_line(holder)
        with pytest.raises(
            MachineError, match=rf"^waited 0 s in vain for 4 of 16 seats .*GPU-a, held by pid {holder.pid} \("
        ):
            now(FOUR, A)


def test_time_is_up_when_it_was_said_to_be() -> None:
    held, pauses = now(Share(1), A), list[float]()
    with pytest.raises(MachineError):
        lease(Share(1), [A], 0, waiting(0.35, pauses.append))
    assert (held.gpus, sum(pauses)) == ((A,), pytest.approx(0.35))


def test_who_waits_holds_nothing() -> None:
    held, free = now(Share(1), B), list[list[str]]()
    with pytest.raises(MachineError):
        lease(Share(2), [A, B], 0, waiting(0.2, lambda _: free.append(taken(A, B))))
    assert (held.gpus, free) == ((B,), [[B], [B]])


def test_contenders_for_the_same_gpus_all_get_them_and_never_meet(tmp_path: Path) -> None:
    """Each wants two of three, so that any two of them want one in common, and takes them in another order."""
    marks = tmp_path / "marks"
    marks.mkdir()
    with ExitStack() as stack:
        orders = f"{A},{B},{C}", f"{C},{B},{A}", f"{B},{C},{A}"
        all_ = [stack.enter_context(started("contend", order, "2", "25", str(marks))) for order in orders]
        assert [communicated(process) for process in all_] == [("done\n", 0)] * 3


def communicated(process: subprocess.Popen[str]) -> tuple[str, int]:
    out, _ = process.communicate(timeout=60)
    return out, process.returncode


# the turn of a run


def test_one_run_at_a_time_has_the_turn() -> None:
    first = take_turn([A, B], Patience(0, pytest.fail))
    with pytest.raises(MachineError, match="the workers of another run to have their seats on GPU-b, GPU-c"):
        take_turn([C, B], Patience(0, pytest.fail))
    first.close()
    take_turn([C, B], Patience(0, pytest.fail)).close()


def test_runs_on_different_gpus_do_not_wait_for_one_another() -> None:
    with take_turn([A], Patience(0, pytest.fail)), take_turn([B], Patience(0, pytest.fail)):
        assert taken(A, B) == []


def test_the_turn_is_no_seat() -> None:
    with take_turn([A], Patience(0, pytest.fail)):
        assert now(Share(1), A).gpus == (A,)


def test_whoever_lets_nobody_take_seats_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats_module, "GATE_PATIENCE", 0.05)
    with started("gate") as process:
        assert first_line(process) == "alone"
        with pytest.raises(MachineError, match=rf"for 1 whole GPU among GPU-a, held by pid {process.pid} \("):
            now(Share(1), A)
        process.kill()
