"""Messages: each is matched by its class, and comes out of pickle and of a packet as it went in."""

from __future__ import annotations

import pickle
from typing import Any, get_args

import msgspec
import pytest

from harness.ipc import messages
from harness.ipc.messages import Call, Failed, Fork, Kill, Killed, RankConfig, Reply, Request, Run
from harness.trace.raising import Frame, Raising

CONFIG = RankConfig(1, 4, "nccl", 0, {"NCCL_HOSTID": "node1"}, ("stamps",))
SENT = {
    "join": messages.Join(b"token"),
    "world size": messages.WorldSize(3),
    "run": Run(b"scenario", {(0, 1): 3}),
    "call": Call("module:function", {(0, 1): 3}, ("a", 2)),
    "ready": messages.Ready({"kernels": True}),
    "done": messages.Done(),
    "returned": messages.Returned({"any": object}),
    "raised": messages.Raised(Raising("pool", "ValueError", "no", (Frame("use", "a.py", 1),), ("Traceback",))),
    "line": messages.Line("p source\n"),
    "said": messages.Said("(Pdb) "),
    "asks": messages.Asks(),
    "refused": messages.Refused("no such pool"),
    "broken": messages.Broken("failed with ncclSystemError"),
    "failed": Failed("KeyError: 3", "Traceback"),
}


def test_every_request_and_reply_is_tried_here() -> None:
    assert {type(message) for message in SENT.values()} == {*get_args(Request), *get_args(Reply)}


@pytest.mark.parametrize("name", SENT)
def test_a_message_between_parent_and_rank_survives_pickle(name: str) -> None:
    assert pickle.loads(pickle.dumps(SENT[name])) == SENT[name]


@pytest.mark.parametrize("name", SENT)
def test_a_message_cannot_be_changed(name: str) -> None:
    message: Any = SENT[name]
    for field in message.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(message, field, None)


@pytest.mark.parametrize("message", [Fork(CONFIG), Kill((3, 4))], ids=["fork", "kill"])
def test_a_zygote_knows_requests_by_their_class(message: Fork | Kill) -> None:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Fork | Kill)
    assert decoded == message


def test_wait_statuses_keep_their_pids() -> None:
    killed = Killed({17: 9, 18: 0})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(killed), type=Killed) == killed
