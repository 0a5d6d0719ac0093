"""Seats: lock files for every user of a machine, which are whole, and free when their process is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.machine import seats as seats_module
from harness.machine.seats import RANKS_PER_GPU, Seats, seat
from tests.tools.lessee import first_line, lessee

NOBODY = 65534
GPU, OTHER = "GPU-aa", "GPU-bb"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test keeps its seats; not made yet."""
    monkeypatch.setenv(seats_module.VARIABLE, str(tmp_path / "leases"))
    return tmp_path / "leases"


@pytest.fixture
def narrow() -> Iterator[None]:
    """A user who shows others nothing."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def free(seats: Seats, gpu: str = GPU) -> int:
    """How many seats of a GPU are free."""
    return sum(seats.take([seat(gpu, number)]) is not None for number in range(RANKS_PER_GPU))


# the folder


def test_every_user_may_write_the_folder_and_remove_only_files_of_their_own(folder: Path, narrow: None) -> None:
    Seats()
    assert mode(folder) == 0o1777


def test_every_user_may_lock_a_file_whatever_the_umask(folder: Path, narrow: None) -> None:
    Seats().take([seat(GPU, 0)])
    assert [mode(path) for path in folder.iterdir()] == [0o666]


def test_the_umask_stays_as_it_was(folder: Path, narrow: None) -> None:
    Seats().take([seat(GPU, 0)])
    assert os.umask(0o077) == 0o077


def test_a_folder_that_is_there_keeps_its_mode(folder: Path) -> None:
    folder.mkdir(mode=0o750)
    Seats()
    assert mode(folder) == 0o750


def test_a_tmpdir_of_its_own_hides_a_run_from_no_other(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(seats_module.VARIABLE)
    monkeypatch.setattr(seats_module, "MACHINE_WIDE", folder)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "mine"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert Seats().folder == folder


@pytest.mark.parametrize(
    ("made", "said"),
    [
        pytest.param(lambda folder: folder.write_text(""), "is no folder", id="a file"),
        pytest.param(lambda folder: folder.symlink_to("gone"), "is a link", id="a link to nothing"),
        pytest.param(lambda folder: folder.symlink_to(folder.parent), "is a link", id="a link to a folder"),
    ],
)
def test_what_is_no_folder_is_refused_by_name(folder: Path, made: Callable[[Path], object], said: str) -> None:
    made(folder)
    with pytest.raises(MachineError, match=rf"^{re.escape(str(folder))} {said}.*SYMM_LEASE_DIR"):
        Seats()


@pytest.mark.parametrize("place", ["/proc/leases", "/nowhere/leases"])
def test_a_folder_that_cannot_be_made_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv(seats_module.VARIABLE, place)
    with pytest.raises(MachineError, match=rf"^cannot make {place} .*No such file.*SYMM_LEASE_DIR"):
        Seats()


def test_a_file_system_without_flock_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(MachineError, match=r"cannot lock .*Function not implemented"):
        Seats().take([seat(GPU, 0)])


# other users


def as_nobody(act: Callable[[], object]) -> str:
    """What an act comes to for another user: its result or its error, in words."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = repr(act())
        except MachineError as error:
            said = str(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as words:
        return words.read()


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that other users can reach, unlike those of pytest."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        monkeypatch.setenv(seats_module.VARIABLE, f"{place}/leases")
        Path(place).chmod(0o1777)
        yield Path(place) / "leases"


def test_a_seat_of_another_user_is_taken(shared: Path) -> None:
    held = Seats().take([seat(GPU, 0)])
    assert held is not None
    assert as_nobody(lambda: Seats().take([seat(GPU, 0)])) == "None"


def test_a_seat_that_another_user_gave_back_is_free(shared: Path) -> None:
    as_nobody(lambda: Seats().take([seat(GPU, 0)]))
    assert [(path.stat().st_uid, free(Seats())) for path in shared.iterdir()] == [(NOBODY, RANKS_PER_GPU)]


def test_a_lock_file_that_its_owner_keeps_to_himself_is_named(shared: Path) -> None:
    Seats()
    (shared / seat(GPU, 0)).touch(mode=0o600)
    said = as_nobody(lambda: Seats().take([seat(GPU, 0)]))
    assert re.match(rf"cannot lock {shared}/GPU-aa.00.lock, a file of root: Permission denied", said)


def test_a_folder_that_another_user_keeps_to_himself_is_named(shared: Path) -> None:
    shared.mkdir(mode=0o755)
    said = as_nobody(lambda: Seats().take([seat(GPU, 0)]))
    assert re.match(rf"cannot lock {shared}/GPU-aa.00.lock: Permission denied", said)


# all or nothing


def test_what_is_taken_is_not_free(folder: Path) -> None:
    seats = Seats()
    held = seats.take([seat(GPU, 3), seat(GPU, 5)])
    assert held is not None
    assert free(seats) == RANKS_PER_GPU - 2


def test_what_is_closed_is_free_again(folder: Path) -> None:
    seats = Seats()
    held = seats.take([seat(GPU, 3)])
    assert held is not None
    held.close()
    assert free(seats) == RANKS_PER_GPU


def test_of_files_of_which_one_is_held_none_is_taken(folder: Path) -> None:
    seats = Seats()
    held = seats.take([seat(GPU, 9)])
    assert (held is not None, seats.take([seat(GPU, 3), seat(GPU, 9)]), free(seats)) == (True, None, RANKS_PER_GPU - 1)


def test_files_are_locked_in_sorted_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[str] = []
    monkeypatch.setattr(Seats, "_take", lambda self, name, taken: not locked.append(name))
    Seats().take([seat(OTHER, 2), seat(GPU, 10), seat(GPU, 9)])
    assert locked == [seat(GPU, 9), seat(GPU, 10), seat(OTHER, 2)]


def test_any_seats_are_the_first_that_are_free(folder: Path) -> None:
    seats = Seats()
    held = seats.take([seat(GPU, 1)])
    some = seats.take_any(GPU, 2)
    assert held is not None
    assert some is not None
    assert [seats.take([seat(GPU, number)]) is None for number in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("taken", "wanted", "left"), [(1, 16, 15), (10, 7, 6), (16, 1, 0)])
def test_fewer_free_seats_than_wanted_are_left_alone(folder: Path, taken: int, wanted: int, left: int) -> None:
    seats = Seats()
    held = seats.take_any(GPU, taken)
    assert (held is not None, seats.take_any(GPU, wanted), free(seats)) == (True, None, left)


def test_one_process_at_a_time_takes_seats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats_module, "GATE_PATIENCE", 0)
    with Seats().alone() as first, Seats().alone() as second:
        assert (first, second) == (True, False)


# other processes


def test_a_seat_of_another_process_is_taken(folder: Path) -> None:
    with lessee(GPU) as process:
        first_line(process)
        assert free(Seats()) == 0


def test_a_killed_process_leaves_its_seats_free_at_once(folder: Path) -> None:
    with lessee(GPU) as process:
        first_line(process)
        process.kill()
        process.wait()
        assert free(Seats()) == RANKS_PER_GPU


def test_the_kernel_says_who_holds_a_seat(folder: Path) -> None:
    with lessee(GPU) as process:
        first_line(process)
        assert Seats().holders([GPU, OTHER]) == [process.pid]


def test_who_holds_a_seat_of_another_gpu_is_not_meant(folder: Path) -> None:
    with lessee(OTHER) as process:
        first_line(process)
        assert Seats().holders([GPU]) == []


def test_nobody_is_named_where_the_kernel_does_not_say(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats_module, "LOCKS", tmp_path / "locks")
    with lessee(GPU) as process:
        first_line(process)
        assert Seats().holders([GPU]) == []


def test_a_process_is_described_in_one_line() -> None:
    assert re.fullmatch(rf"pid {os.getpid()} \(\S+: .+\)", seats_module.described(os.getpid()))


def test_a_process_that_is_gone_is_described_by_its_number() -> None:
    assert seats_module.described(2**22 + 1) == f"pid {2**22 + 1}"
