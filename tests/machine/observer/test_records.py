"""What a recording says of a process: every fact, in order, whatever NCCL answered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import pytest

from harness.errors import MachineError
from harness.machine.observer.layout import DTYPES, FUNCTIONS
from harness.machine.observer.records import (
    AllocationFailed,
    Call,
    CommCreated,
    CommGone,
    Deregistered,
    Fact,
    Freed,
    GroupEnded,
    LocallyRegistered,
    Process,
    Registered,
    RegisterEntered,
    RegisterFailed,
    read,
    read_all,
)
from tests.tools.fake_libnccl import fake_nccl, recorded

ONE_OF_EACH = """
nccl = Nccl()
comm = nccl.world()
memory = nccl.alloc()
window = nccl.register(comm, memory)
for _ in range(3):
    nccl.all_gather(comm, memory, memory)
nccl.call("CommWindowDeregister", comm, window)
nccl.call("MemFree", memory)
nccl.call("CommDestroy", comm)
"""


def in_order(process: Process) -> list[str]:
    return [type(process.facts[index]).__name__ for index in process.order]


Kind = TypeVar("Kind", bound=Fact)


def of(kind: type[Kind], process: Process) -> list[Kind]:
    return [fact for fact in process.facts if isinstance(fact, kind)]


def calls(program: str, folder: Path, more: dict[str, str] | None = None) -> list[Call]:
    head = "nccl = Nccl(); comm = nccl.world(); memory = nccl.alloc()\n"
    (process,) = recorded(head + program, folder, more=more)
    return of(Call, process)


def test_facts_come_in_the_order_of_the_process(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    registered = ["CommCreated", "Allocated", "RegisterEntered", "Registered"]
    assert in_order(process) == [*registered, "Call", "Call", "Call", "Deregistered", "Freed", "CommGone"]


def test_a_process_says_who_it_is(tmp_path: Path) -> None:
    (process,) = recorded("import os; Nccl().alloc(); print(os.getpid())", tmp_path, more={"RANK": "3"})
    assert (process.rank, process.nccl, process.real) == (3, (2, 32, 3), str(fake_nccl().resolve()))
    assert re.fullmatch(rf"{re.escape(process.host)}-{process.pid}-0\.symm", Path(process.path).name)
    assert process.command.endswith("print(os.getpid())'")


@pytest.mark.parametrize("name", ["SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"])
def test_other_launchers_tell_the_rank_too(name: str, tmp_path: Path) -> None:
    (process,) = recorded("Nccl().alloc()", tmp_path, more={"RANK": "", name: "5"})
    assert process.rank == 5


def test_a_process_without_a_launcher_has_no_rank(tmp_path: Path) -> None:
    (process,) = recorded("Nccl().alloc()", tmp_path, more={"RANK": "first"})
    assert process.rank == -1


def test_equal_calls_are_one_fact_with_a_count(tmp_path: Path) -> None:
    (call,) = calls("for _ in range(3): nccl.all_gather(comm, memory, memory)", tmp_path)
    assert (call.calls, call.count, call.send, call.result) == (3, 16, call.receive, 0)


def test_calls_that_differ_in_a_buffer_are_two_facts(tmp_path: Path) -> None:
    assert len(calls("nccl.all_gather(comm, memory, memory); nccl.all_gather(comm, None, memory)", tmp_path)) == 2


def test_a_call_that_failed_is_another_fact(tmp_path: Path) -> None:
    program = "for _ in range(3): nccl.all_gather(comm, memory, memory)"
    found = calls(program, tmp_path, {"FAKE_NCCL_FAIL_CALL": "2"})
    assert [(call.calls, call.result) for call in found] == [(2, 0), (1, 4)]


EVERY = {
    "AllGather": ("memory, None, 8, 7", "", -1),
    "AlltoAll": ("memory, None, 8, 7", "", -1),
    "AllReduce": ("memory, None, 8, 7, 4", "avg", -1),
    "ReduceScatter": ("memory, None, 8, 7, 0", "sum", -1),
    "Reduce": ("memory, None, 8, 7, 2, 1", "max", 1),
    "Broadcast": ("memory, None, 8, 7, 1", "", 1),
    "Gather": ("memory, None, 8, 7, 1", "", 1),
    "Scatter": ("memory, None, 8, 7, 1", "", 1),
    "Send": ("memory, 8, 7, 1", "", 1),
}


@pytest.mark.parametrize("function", EVERY)
def test_every_collective_is_seen_with_its_arguments(function: str, tmp_path: Path) -> None:
    arguments, op, root = EVERY[function]
    (call,) = calls(f"nccl.call({function!r}, {arguments}, comm, 77)", tmp_path)
    assert (call.function, call.dtype, call.count, call.op, call.root) == (function, "float32", 8, op, root)
    assert (call.receive, call.stream, bool(call.send)) == (0, 77, True)


def test_a_receive_is_seen_at_its_own_end(tmp_path: Path) -> None:
    (call,) = calls('nccl.call("Recv", memory, 8, 7, 1, comm, None)', tmp_path)
    assert (call.function, call.send, call.root) == ("Recv", 0, 1)
    assert call.receive


def test_an_old_broadcast_is_a_broadcast_in_place(tmp_path: Path) -> None:
    (call,) = calls('nccl.call("Bcast", memory, 8, 7, 1, comm, None)', tmp_path)
    assert (call.function, call.send) == ("Broadcast", call.receive)


def test_a_call_with_a_configuration_is_the_same_function(tmp_path: Path) -> None:
    (call,) = calls('nccl.call("AllGatherConfig", memory, None, 8, 7, comm, None, None)', tmp_path)
    assert call.function == "AllGather"


def test_every_function_of_the_observer_is_tried() -> None:
    assert EVERY.keys() | {"Recv"} == set(FUNCTIONS)


@pytest.mark.parametrize(("number", "name"), list(enumerate(DTYPES)))
def test_every_datatype_has_its_word_in_torch(number: int, name: str) -> None:
    torch = pytest.importorskip("torch")
    assert getattr(torch, name).itemsize == (1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1)[number]


def test_ranks_of_one_communicator_agree_on_its_identity(tmp_path: Path) -> None:
    processes = recorded("Nccl().world(2)", tmp_path, ranks=2)
    created = [fact for process in processes for fact in of(CommCreated, process)]
    assert [(fact.rank, fact.size, fact.how) for fact in created] == [(0, 2, "init"), (1, 2, "init")]
    assert len({fact.identity for fact in created}) == 1


def test_two_communicators_over_the_same_ranks_differ(tmp_path: Path) -> None:
    (process,) = recorded("nccl = Nccl(); comm = nccl.world(); nccl.split(comm, 0); nccl.split(comm, 0)", tmp_path)
    assert len({fact.identity for fact in of(CommCreated, process)}) == 3


def test_halves_of_a_split_agree_and_differ_from_one_another(tmp_path: Path) -> None:
    processes = recorded("nccl = Nccl(); nccl.split(nccl.world(4), RANK // 2, -RANK)", tmp_path, ranks=4)
    halves = [of(CommCreated, process)[1] for process in processes]
    seen = [(half.how, half.parent, half.size, half.rank, half.colour, half.key) for half in halves]
    assert seen == [("split", 1, 2, 1 - rank % 2, rank // 2, -rank) for rank in range(4)]
    identities = [half.identity for half in halves]
    assert identities[0] == identities[1] != identities[2] == identities[3]


def test_a_rank_that_a_split_leaves_out_has_a_communicator_of_no_size(tmp_path: Path) -> None:
    (process,) = recorded("nccl = Nccl(); nccl.split(nccl.world(), -1)", tmp_path)
    _, created = of(CommCreated, process)
    assert (created.how, created.colour, created.size) == ("split", -1, 0)


def test_a_communicator_has_the_name_of_its_configuration(tmp_path: Path) -> None:
    program = """
nccl = Nccl()
config = Config(ctypes.sizeof(Config), 0xcafebeef, 23203, name=b"attn_cp")
comm = nccl.made("CommInitRankConfig", (), (1, nccl.unique_id(), 0, ctypes.byref(config)))
config.size = Config.name.offset
comm = nccl.made("CommInitRankConfig", (), (1, nccl.unique_id(), 0, ctypes.byref(config)))
"""
    (process,) = recorded(program, tmp_path)
    assert [(fact.how, fact.name) for fact in of(CommCreated, process)] == [
        ("config", "attn_cp"),
        ("config", ""),
    ]


def test_several_ids_make_one_identity(tmp_path: Path) -> None:
    program = """
nccl = Nccl()
ids = (UniqueId * 2)(agreed(nccl, "one", RANK), agreed(nccl, "two", RANK))
comm = nccl.made("CommInitRankScalable", (), (2, RANK, 2, ids, None))
"""
    first, second = (of(CommCreated, process)[0] for process in recorded(program, tmp_path, ranks=2))
    assert (first.how, first.identity, first.rank, second.rank) == ("scalable", second.identity, 0, 1)


def test_one_call_for_all_devices_makes_one_communicator_of_several_ranks(tmp_path: Path) -> None:
    program = 'comms = (POINTER * 3)(); Nccl().call("CommInitAll", comms, 3, None)'
    (process,) = recorded(program, tmp_path)
    created = of(CommCreated, process)
    assert [(fact.how, fact.rank, fact.size) for fact in created] == [("all", rank, 3) for rank in range(3)]
    assert len({fact.identity for fact in created}) == 1


def test_ranks_that_are_left_agree_on_a_shrunk_communicator(tmp_path: Path) -> None:
    program = """
nccl = Nccl()
world = nccl.world(4)
out = (INT * 2)(*((1, 3) if RANK else (3, 1)))
if RANK in (0, 2):
    nccl.made("CommShrink", (world, out, 2), (None, 0))
"""
    first, _, second, _ = recorded(program, tmp_path, ranks=4)
    assert [(fact.how, fact.rank, fact.size) for fact in of(CommCreated, first)[1:]] == [("shrink", 0, 2)]
    assert of(CommCreated, first)[1].identity == of(CommCreated, second)[1].identity


GROW = """
nccl = Nccl()
world = nccl.world(2) if RANK < 2 else None
invitation = agreed(nccl, "new", RANK)
id = ctypes.byref(invitation) if RANK != 1 else None
grown = nccl.made("CommGrow", (world, 3, id, RANK if RANK == 2 else -1), (None,))
"""


def test_old_and_new_ranks_agree_on_a_communicator_that_grew(tmp_path: Path) -> None:
    processes = recorded(GROW, tmp_path, ranks=3)
    grown = [of(CommCreated, process)[-1] for process in processes]
    assert {(fact.how, fact.size) for fact in grown} == {("grow", 3)}
    assert [fact.rank for fact in grown] == [0, 1, 2]
    assert len({fact.identity for fact in grown}) == 1


def test_a_communicator_that_was_created_unseen_is_unknown(tmp_path: Path) -> None:
    program = """
nccl = Nccl()
nccl.library.pncclCommInitRankConfig.argtypes = SIGNATURES["ncclCommInitRankConfig"]
comm = POINTER()
nccl.library.pncclCommInitRankConfig(ctypes.byref(comm), 1, nccl.unique_id(), 0, None)
nccl.all_gather(comm, None, None)
nccl.split(comm, 0)
"""
    (process,) = recorded(program, tmp_path)
    (created, child), (call,) = of(CommCreated, process), of(Call, process)
    assert (child.how, child.parent, child.identity) == ("split", created.comm, 0)
    assert (created.how, created.size, created.rank, created.identity) == ("unknown", 1, 0, 0)
    assert call.comm == created.comm


@pytest.mark.parametrize("how", ["finalize", "destroy", "abort", "revoke"])
def test_the_end_of_a_communicator_says_how(how: str, tmp_path: Path) -> None:
    more = ", 0" if how == "revoke" else ""
    (process,) = recorded(f'nccl = Nccl(); nccl.call("Comm{how.title()}", nccl.world(){more})', tmp_path)
    assert of(CommGone, process) == [CommGone(1, how)]


def test_a_new_communicator_at_an_old_address_has_a_number_of_its_own(tmp_path: Path) -> None:
    program = """
nccl = Nccl()
for turn in range(20):
    comm = nccl.world(name=str(turn))
    nccl.all_gather(comm, None, None)
    nccl.call("CommDestroy", comm)
"""
    (process,) = recorded(program, tmp_path)
    assert [fact.comm for fact in of(Call, process)] == list(range(1, 21))


def test_a_failed_creation_has_nccls_result(tmp_path: Path) -> None:
    (process,) = recorded("Nccl().made('CommInitRank', (), (1, UniqueId(), 5))", tmp_path)
    (created,) = of(CommCreated, process)
    assert (created.result, created.size) == (4, 0)


def test_a_refused_allocation_is_a_fact(tmp_path: Path) -> None:
    (process,) = recorded("nccl = Nccl(); nccl.alloc(); nccl.alloc(5000)", tmp_path, more={"FAKE_NCCL_FAIL_ALLOC": "2"})
    (failed,) = of(AllocationFailed, process)
    assert (failed.size, failed.result, failed.denied) == (5000, 1, False)


def test_a_registration_that_failed_leaves_no_window(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path, more={"FAKE_NCCL_FAIL_REGISTER": "1"})
    assert not of(Registered, process)
    (failed,) = of(RegisterFailed, process)
    (entered,) = of(RegisterEntered, process)
    assert (failed.result, failed.address, failed.flags) == (4, entered.address, 1)


def test_a_registration_may_give_no_window(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path, more={"FAKE_NCCL_NULL_WINDOWS": "1"})
    (registered,) = of(Registered, process)
    assert registered.window == 0


def test_a_registration_without_a_window_is_a_fact_if_the_program_made_it(tmp_path: Path) -> None:
    """NCCL makes one, too, for each window."""
    program = "nccl = Nccl(); comm = nccl.world(); memory = nccl.alloc(); nccl.register(comm, memory)\n"
    (process,) = recorded(f"{program}nccl.made('CommRegister', (comm, memory, 4096))", tmp_path)
    (found,), (window,) = of(LocallyRegistered, process), of(Registered, process)
    assert (found.comm, found.address, found.size) == (window.comm, window.address, 4096)


def test_a_window_is_given_back_by_its_own_name(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    (registered,), (deregistered,) = of(Registered, process), of(Deregistered, process)
    assert deregistered.window == registered.window


def test_a_free_names_the_segment(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    (freed,), (entered,) = of(Freed, process), of(RegisterEntered, process)
    assert (freed.address, freed.is_held) == (entered.address, False)


IN_A_GROUP = """
nccl = Nccl()
world = nccl.world(2)
memory = nccl.alloc()
nccl.call("GroupStart")
child, window = POINTER(), POINTER()
nccl.call("CommSplit", world, 0, 0, ctypes.byref(child), None)
nccl.call("CommWindowRegister", world, memory, 4096, ctypes.byref(window), 1)
nccl.call("GroupEnd")
nccl.all_gather(child, memory, memory)
"""


def test_what_a_group_makes_is_there_when_it_ends(tmp_path: Path) -> None:
    process, _ = recorded(IN_A_GROUP, tmp_path, ranks=2)
    child = of(CommCreated, process)[1]
    (registered,), (call,) = of(Registered, process), of(Call, process)
    assert (child.result, child.size, child.rank, call.comm) == (0, 2, 0, child.comm)
    assert registered.window
    assert in_order(process)[2:] == [
        *("GroupStarted", "RegisterEntered", "CommCreated", "Registered", "GroupEnded", "Call")
    ]


def test_a_group_that_failed_has_made_nothing(tmp_path: Path) -> None:
    (process,) = recorded(IN_A_GROUP.replace("world(2)", "world(1)"), tmp_path, more={"FAKE_NCCL_FAIL_GROUP": "1"})
    (failed,) = of(RegisterFailed, process)
    (ended,) = of(GroupEnded, process)
    assert (failed.result, ended.result) == (1, 1)
    assert not of(Registered, process)


POLLED = """
nccl = Nccl()
def wait(comm):
    state = INT(7)
    while state.value == 7:
        nccl.call("CommGetAsyncError", comm, ctypes.byref(state))
world = nccl.world(2); wait(world)
child = nccl.split(world, 0); wait(child)
memory = nccl.alloc()
window = POINTER()
nccl.call("CommWindowRegister", child, memory, 4096, ctypes.byref(window), 1); wait(child)
"""


def test_what_a_communicator_makes_that_does_not_block_is_there_when_it_says_so(tmp_path: Path) -> None:
    process, _ = recorded(POLLED, tmp_path, ranks=2, more={"FAKE_NCCL_NONBLOCKING": "1"})
    assert in_order(process) == ["CommCreated", "CommCreated", "Allocated", "RegisterEntered", "Registered"]
    assert [(fact.size, fact.rank, fact.result) for fact in of(CommCreated, process)] == [(2, 0, 0), (2, 0, 0)]
    (registered,) = of(Registered, process)
    assert registered.window


def test_what_a_group_makes_on_a_communicator_that_does_not_block_is_there_when_it_says_so(tmp_path: Path) -> None:
    start, _, rest = POLLED.partition("window = POINTER()\n")
    program = f'{start}window = POINTER(); nccl.call("GroupStart")\n' + rest.replace(
        "; wait", '; nccl.call("GroupEnd"); wait'
    )
    process, _ = recorded(program, tmp_path, ranks=2, more={"FAKE_NCCL_NONBLOCKING": "1"})
    assert in_order(process)[3:] == ["GroupStarted", "RegisterEntered", "GroupEnded", "Registered"]
    assert [fact.window != 0 for fact in of(Registered, process)] == [True]
    assert [fact.result for fact in of(GroupEnded, process)] == [7]


def test_a_result_whose_place_is_gone_ends_no_program(tmp_path: Path) -> None:
    program = """
import mmap
nccl = Nccl()
state = INT(7)
def wait(comm):
    state.value = 7
    while state.value == 7: nccl.call("CommGetAsyncError", comm, ctypes.byref(state))
comm = nccl.world(); wait(comm)
page = ctypes.CDLL(None).mmap
page.restype, page.argtypes = POINTER, (POINTER, SIZE, INT, INT, INT, ctypes.c_long)
place = page(None, 4096, 3, 0x22, -1, 0)
nccl.call("CommWindowRegister", comm, nccl.alloc(), 4096, place, 1)
nccl.library.fakeForgetTask(comm)
ctypes.CDLL(None).munmap(POINTER(place), SIZE(4096))
wait(comm)
"""
    (process,) = recorded(program, tmp_path, more={"FAKE_NCCL_NONBLOCKING": "1"})
    assert [failed.result for failed in of(RegisterFailed, process)] == [7]


def test_what_was_in_progress_ends_with_its_communicator(tmp_path: Path) -> None:
    program = """
nccl = Nccl()
comm = nccl.world()
nccl.register(comm, nccl.alloc())
nccl.call("CommAbort", comm)
"""
    (process,) = recorded(program, tmp_path, more={"FAKE_NCCL_NONBLOCKING": "1"})
    assert [failed.result for failed in of(RegisterFailed, process)] == [7]
    assert process.in_flight == ()


def test_a_file_that_is_no_recording_is_one_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "notes.symm"
    path.write_text("hello")
    with pytest.raises(MachineError, match=re.escape(f"{path} is no recording of the observer")):
        read(path)


def test_a_recording_that_is_cut_off_is_one_error_that_names_it(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    path = Path(process.path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(MachineError, match=re.escape(str(path))):
        read(path)


def test_a_recording_with_a_fact_of_no_kind_is_damaged(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    path = Path(process.path)
    content = bytearray(path.read_bytes())
    content[4096] = 99
    path.write_bytes(content)
    with pytest.raises(MachineError, match=rf"{re.escape(str(path))} is damaged"):
        read(path)


def test_a_recording_of_another_layout_is_refused(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    path = Path(process.path)
    content = bytearray(path.read_bytes())
    content[8] = 2
    path.write_bytes(content)
    with pytest.raises(MachineError, match="has layout 2, and this harness reads layout 1"):
        read(path)


def test_a_folder_without_recordings_has_no_processes(tmp_path: Path) -> None:
    assert read_all(tmp_path) == []


def test_a_recording_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"gone\.symm cannot be read: No such file"):
        read(tmp_path / "gone.symm")
