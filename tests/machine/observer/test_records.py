"""What a recording says of a process: every fact, in order, however the process called NCCL."""

from __future__ import annotations

from pathlib import Path

from harness.machine.observer.records import Call, CommCreated, Process, Registered, RegisterEntered
from tests.tools.fake_libnccl import recorded

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


def test_facts_come_in_the_order_of_the_process(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    registered = ["CommCreated", "Allocated", "RegisterEntered", "Registered"]
    assert in_order(process) == [*registered, "Call", "Call", "Call", "Deregistered", "Freed", "CommGone"]


def test_equal_calls_are_one_fact_with_a_count(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    (call,) = (fact for fact in process.facts if isinstance(fact, Call))
    assert (call.calls, call.function, call.dtype, call.count, call.op, call.root) == (
        3,
        "AllGather",
        "bfloat16",
        16,
        "",
        -1,
    )


def test_ranks_of_one_communicator_agree_on_its_identity(tmp_path: Path) -> None:
    processes = recorded("Nccl().world(2)", tmp_path, ranks=2)
    created = [fact for process in processes for fact in process.facts if isinstance(fact, CommCreated)]
    assert [(fact.rank, fact.size, fact.how) for fact in created] == [(0, 2, "init"), (1, 2, "init")]
    assert len({fact.identity for fact in created}) == 1


def test_a_window_belongs_to_what_was_registered(tmp_path: Path) -> None:
    (process,) = recorded(ONE_OF_EACH, tmp_path)
    entered, registered = process.facts[2:4]
    assert isinstance(entered, RegisterEntered)
    assert isinstance(registered, Registered)
    assert (entered.address, entered.size) == (registered.address, registered.size)
    assert registered.window
