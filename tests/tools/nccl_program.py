"""NCCL by ctypes, as engines call it, for programs that tests start in processes of their own."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import TypeAlias

POINTER: TypeAlias = ctypes.c_void_p
SIZE, INT = ctypes.c_size_t, ctypes.c_int
BFLOAT16, SUM = 9, 0
RANK = int(os.environ["RANK"]) if os.environ.get("RANK", "").isdigit() else 0


class UniqueId(ctypes.Structure):
    """The 128 bytes that name a communicator before it is there."""

    _fields_ = (("internal", ctypes.c_byte * 128),)


class Config(ctypes.Structure):
    """The beginning of `ncclConfig_t`, as far as the name."""

    _fields_ = (
        *(("size", SIZE), ("magic", ctypes.c_uint), ("version", ctypes.c_uint), ("blocking", INT), ("cga", INT)),
        *(("least", INT), ("most", INT), ("net", ctypes.c_char_p), ("share", INT), ("traffic", INT)),
        ("name", ctypes.c_char_p),
    )


SIGNATURES = {
    "ncclGetUniqueId": (POINTER,),
    "ncclCommInitRank": (POINTER, INT, UniqueId, INT),
    "ncclCommInitRankConfig": (POINTER, INT, UniqueId, INT, POINTER),
    "ncclCommInitRankScalable": (POINTER, INT, INT, INT, POINTER, POINTER),
    "ncclCommInitAll": (POINTER, INT, POINTER),
    "ncclCommSplit": (POINTER, INT, INT, POINTER, POINTER),
    "ncclCommShrink": (POINTER, POINTER, INT, POINTER, POINTER, INT),
    "ncclCommGrow": (POINTER, INT, POINTER, INT, POINTER, POINTER),
    "ncclCommFinalize": (POINTER,),
    "ncclCommDestroy": (POINTER,),
    "ncclCommAbort": (POINTER,),
    "ncclCommRevoke": (POINTER, INT),
    "ncclCommGetAsyncError": (POINTER, POINTER),
    "ncclMemAlloc": (POINTER, SIZE),
    "ncclMemFree": (POINTER,),
    "ncclCommRegister": (POINTER, POINTER, SIZE, POINTER),
    "ncclCommWindowRegister": (POINTER, POINTER, SIZE, POINTER, INT),
    "ncclCommWindowDeregister": (POINTER, POINTER),
    "ncclAllGather": (POINTER, POINTER, SIZE, INT, POINTER, POINTER),
    "ncclAllGatherConfig": (POINTER, POINTER, SIZE, INT, POINTER, POINTER, POINTER),
    "ncclAlltoAll": (POINTER, POINTER, SIZE, INT, POINTER, POINTER),
    "ncclAllReduce": (POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclReduceScatter": (POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclReduce": (POINTER, POINTER, SIZE, INT, INT, INT, POINTER, POINTER),
    "ncclBroadcast": (POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclGather": (POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclScatter": (POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclBcast": (POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclSend": (POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclRecv": (POINTER, SIZE, INT, INT, POINTER, POINTER),
    "ncclGroupStart": (),
    "ncclGroupEnd": (),
}


class Nccl:
    """The library under NCCL's name, or the one at `path`. Methods return what they make, and the last `result`."""

    def __init__(self, path: str = "libnccl.so.2") -> None:
        self.library = ctypes.CDLL(path)
        self.result = 0
        for name, signature in SIGNATURES.items():
            getattr(self.library, name).argtypes = signature

    def call(self, name: str, *arguments: object) -> int:
        """Call `nccl` and the name. Returns its result."""
        self.result = int(getattr(self.library, f"nccl{name}")(*arguments))
        return self.result

    def made(self, name: str, before: tuple[object, ...], after: tuple[object, ...] = ()) -> POINTER:
        """What the call writes where one of its arguments points."""
        made = POINTER()
        self.call(name, *before, ctypes.byref(made), *after)
        return made

    def unique_id(self) -> UniqueId:
        """A new one."""
        found = UniqueId()
        self.call("GetUniqueId", ctypes.byref(found))
        return found

    def world(self, size: int = 1, rank: int = RANK, name: str = "world") -> POINTER:
        """A communicator of processes that ask for it by the same name."""
        return self.made("CommInitRank", (), (size, agreed(self, name, rank), rank))

    def split(self, comm: POINTER, colour: int, key: int = 0) -> POINTER:
        """A child of `comm`."""
        return self.made("CommSplit", (comm, colour, key), (None,))

    def alloc(self, size: int = 2 << 20) -> POINTER:
        """A segment."""
        return self.made("MemAlloc", (), (size,))

    def register(self, comm: POINTER, address: POINTER, size: int = 2 << 20, flags: int = 1) -> POINTER:
        """A window."""
        return self.made("CommWindowRegister", (comm, address, size), (flags,))

    def all_gather(self, comm: POINTER, send: POINTER, receive: POINTER, count: int = 16) -> int:
        """An all-gather of bfloat16."""
        return self.call("AllGather", send, receive, count, BFLOAT16, comm, None)


def agreed(nccl: Nccl, name: str, rank: int) -> UniqueId:
    """The unique id that rank 0 of the processes of a test made under this name."""
    path = Path(os.environ["FAKE_NCCL_FOLDER"]) / f"id-{name}"
    if rank == 0:
        path.with_suffix(".new").write_bytes(bytes(nccl.unique_id()))
        path.with_suffix(".new").rename(path)
    while not path.exists():
        time.sleep(0.001)
    return UniqueId.from_buffer_copy(path.read_bytes())
