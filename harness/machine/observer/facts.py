"""What the observer sees of a process, a class for each kind of fact.

Invariant: a fact states what the process did or got, and never judges it. A number of a communicator holds inside one
process; `identity` is equal in all processes of one communicator. Addresses and windows are those of the process.
"""

from __future__ import annotations

import msgspec

SYMMETRIC = 1
"""The flag `NCCL_WIN_COLL_SYMMETRIC` of a registration."""
AT_END = "the end of the process"
"""Where the program is once Python has ended in it: it goes with its interpreter."""


class _Fact(msgspec.Struct, frozen=True):
    pass


class CommCreated(_Fact, frozen=True, tag=True):
    """The process has a communicator from now on.

    `result` is NCCL's, and -1 while the call has not returned. `size` is 0 where a split left this rank out. `how` is
    `init`, `config`, `scalable`, `all`, `split`, `shrink`, `grow`, or `unknown` for one that was created unseen. That
    one and its children have identity 0.
    """

    comm: int
    identity: int
    size: int
    rank: int
    how: str
    name: str = ""
    parent: int = -1
    colour: int = 0
    key: int = 0
    result: int = 0
    site: str = ""


class CommGone(_Fact, frozen=True, tag=True):
    """The process gave a communicator up: `finalize`, `destroy`, `abort` or `revoke`."""

    comm: int
    how: str
    result: int = 0


class Allocated(_Fact, frozen=True, tag=True):
    """NCCL gave a segment of `size` bytes."""

    address: int
    size: int
    site: str = ""


class AllocationFailed(_Fact, frozen=True, tag=True):
    """NCCL gave no segment, or the harness denied it."""

    size: int
    result: int
    denied: bool
    site: str = ""


class Freed(_Fact, frozen=True, tag=True):
    """The process frees a segment. `is_held`: it lies under a live window, and the harness keeps it."""

    address: int
    is_held: bool
    site: str = ""


class _Registration(_Fact, frozen=True):
    comm: int
    address: int
    size: int
    flags: int


class RegisterEntered(_Registration, frozen=True, tag=True):
    """The process enters a registration, which waits for the other ranks of the communicator. `thread` is its number
    in the process, 0 where that is not known."""

    site: str = ""
    thread: int = 0


class Registered(_Registration, frozen=True, tag=True):
    """A registration has succeeded. `window` is 0 where NCCL gave none."""

    window: int
    site: str = ""


class RegisterFailed(_Registration, frozen=True, tag=True):
    """A registration has failed with NCCL's `result`."""

    result: int
    site: str = ""


class Deregistered(_Fact, frozen=True, tag=True):
    """The process has given a window back."""

    comm: int
    window: int
    result: int = 0
    site: str = ""


class LocallyRegistered(_Fact, frozen=True, tag=True):
    """`ncclCommRegister` has registered memory with a communicator. That gives no window. Its end is not written."""

    comm: int
    address: int
    size: int
    site: str = ""


class GroupStarted(_Fact, frozen=True, tag=True):
    """A thread begins a group of calls. In flight, it stands for the end of that group."""

    thread: int = 0


class GroupEnded(_Fact, frozen=True, tag=True):
    """A thread has ended a group of calls."""

    result: int = 0
    thread: int = 0


class Call(_Fact, frozen=True, tag=True):
    """Equal calls of a collective, `calls` of them.

    `count` is in elements, as NCCL gets it: those that a rank sends (all-gather) or receives (reduce-scatter). `op` is
    empty and `root` -1 where the function has none; `root` is the peer of a send or receive. An address may be 0.
    `symmetric`, `legacy` and `copy` say how many of the calls NCCL reported on each path, and `copy` counts copy-engine
    collectives. `stream` is that of the first call. `site` has a line for each frame, innermost first.
    `captured`: their streams were captured, so that they ran at no call, and run at replays.
    """

    comm: int
    function: str
    dtype: str
    op: str
    root: int
    count: int
    send: int
    receive: int
    stream: int
    site: str
    calls: int
    symmetric: int
    legacy: int
    copy: int
    result: int = 0
    captured: bool = False


class CaptureBegan(_Fact, frozen=True, tag=True):
    """A thread has begun to capture what is enqueued on `stream`, for a CUDA graph. Equal captures are one fact: of one
    thread, on one stream, at one place. `mode` is `global`, `thread-local` or `relaxed`."""

    stream: int
    thread: int
    mode: str = "global"
    site: str = ""


class CaptureEnded(_Fact, frozen=True, tag=True):
    """A thread has ended the capture of `stream`. `result` is CUDA's: other than 0 where there is no graph."""

    stream: int
    thread: int
    result: int = 0


class Graph(_Fact, frozen=True, tag=True):
    """A capture with calls, and the launches of what it became. Times are in ticks, which `History` explains.

    In the order it comes before captured calls, as often as they change from one capture to another, and not where it
    is launched. `capture` is the number of the capture in the process, from 1 on; 0 stands for all that are not known.
    `ended`, `first` and `last` are 0 where that has not been. `is_for_window`: a call reaches memory of `ncclMemAlloc`.
    """

    capture: int
    began: int
    ended: int
    launches: int
    first: int
    last: int
    is_for_window: bool
    site: str = ""
    launched_at: str = ""


class History(_Fact, frozen=True, tag=True):
    """What became of PyTorch's memory history, which is read at the end of Python.

    `on` where it was switched on; then `read` or `part`, where entries before `since` were lost. Or there is none:
    `not-asked`, `no-torch`, `own` (the program keeps one), `switched-off` (by the program), `cannot`. `rate`: ticks a
    second.
    """

    state: str
    since: int = 0
    rate: int = 0


class Held(_Fact, frozen=True, tag=True):
    """A tensor that PyTorch gave memory of `ncclMemAlloc`, and that was there when some graph was launched. `until` is
    0 where it is there yet. Both times may be wrong by `margin`, in ticks. No capture made it."""

    address: int
    size: int
    since: int
    until: int
    margin: int
    site: str = ""


class Unobserved(_Fact, frozen=True, tag=True):
    """Calls may go past the observer to the library at `path`. Nothing is known of them.

    It is another NCCL, or the real one, which the program then called by its path. Of the real one, `calls` counts the
    collectives that NCCL reported, which it does from 2.31 on.
    """

    path: str
    calls: int = 0


Fact = (
    CommCreated
    | CommGone
    | Allocated
    | AllocationFailed
    | Freed
    | RegisterEntered
    | Registered
    | RegisterFailed
    | Deregistered
    | GroupStarted
    | GroupEnded
    | Call
    | Unobserved
    | CaptureBegan
    | CaptureEnded
    | Graph
    | History
    | Held
    | LocallyRegistered
)
