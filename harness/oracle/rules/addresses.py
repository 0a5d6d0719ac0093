"""Rules on peer addresses: a kernel uses those of live windows, and stays within the memory behind them.

Rules: stale-peer-address, out-of-bounds. Only the simulation sees this; on a GPU such an access is a fault, or meets
what has come there.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.case import Case
from harness.oracle.findings import Finding, OutOfBounds, StalePeerAddress
from harness.oracle.history import History
from harness.oracle.lives import WindowLife
from harness.trace.events import Unmapped


def judge(case: Case) -> Iterator[Finding]:
    for history in case.histories:
        for step, event in history.trace.steps():
            if isinstance(event, Unmapped):
                yield _unmapped(case, history, step, event)


def _unmapped(case: Case, history: History, step: int, event: Unmapped) -> Finding:
    use = next((use for use in history.uses if use.step == step), None)
    what = case.at_step(step) if use is None else case.call(use)
    did = f"wrote 0x{event.found}" if event.found else "read, or wrote zeros,"
    if event.window in history.provided:
        return _beyond(case, history, step, event, f"{what}: rank {history.rank} {did}")
    window = history.windows.get(event.window)
    if window is not None and (window.died is None or window.died > step):
        where = (
            f"at byte {event.offset} of rank {event.peer}'s segment by its address in the window "
            f"{case.window(window)}. The segment ends before that byte"
        )
        return OutOfBounds(f"{what}: rank {history.rank} {did} {where}.", step=step, ranks=(history.rank,))
    return StalePeerAddress(
        f"{what}: rank {history.rank} {did} at {_whose(case, window, event)}. On a GPU that address then has no "
        "memory, or other memory.",
        step=step,
        ranks=(history.rank,),
    )


def _beyond(case: Case, history: History, step: int, event: Unmapped, what: str) -> Finding:
    """At an address of a workspace or of flags that the harness provided, which are gone, or end before it."""
    provided = history.provided[event.window]
    of = f"rank {event.peer}'s {provided.what} of {case.name(history.comms[provided.comm].id)}"
    gone = history.destroyed.get(provided.comm)
    if gone is None or gone > step:
        where = f"{event.offset} bytes behind the begin of {of}, and of its canaries. It ends before that"
        return OutOfBounds(f"{what} {where}.", step=step, ranks=(history.rank,))
    return StalePeerAddress(
        f"{what} at an address that {of} had. It went with its communicator at {case.at_step(gone)}. On a GPU that "
        "address then has no memory, or other memory.",
        step=step,
        ranks=(history.rank,),
    )


def _whose(case: Case, window: WindowLife | None, event: Unmapped) -> str:
    """To which window an address had belonged, and how that went, in two sentences without the last full stop."""
    if window is None or window.died is None:
        return "a peer address that comes from no window of this draw"
    how = "went with its communicator" if window.is_gone_with_communicator else "was deregistered"
    return (
        f"an address that rank {event.peer}'s memory had in a window {case.window(window)}. The window {how} at "
        f"{case.at_step(window.died)}"
    )
