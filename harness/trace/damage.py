"""Events of memory that is not as it has to be: outputs, sources, canaries, pads, and bytes that no call may write.

Invariant: an event shows what was found and what was due, and accuses nobody.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.scenario.layouts.groups import Group, GroupId
from harness.trace.bases import BaseEvent
from harness.trace.calls import Role


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """What the first `matched` of a run of `wrong` elements equal. By `kind`:

    zeros    zero; with a step, so is what `ranks` puts in there at that step
    input    what rank `ranks` had put in
    result   what rank `ranks` should have got of a reduction
    without  the reduction without `ranks`
    twice    the reduction with rank `ranks` counted twice
    mixed    the reduction with what rank `ranks` puts in at step `step`

    `step` is that of an earlier or later call, or -1. `shift`: how many elements further on in that data they are.
    """

    kind: str
    ranks: Group = ()
    step: int = -1
    shift: int = 0
    matched: int = 0
    wrong: int = 0


class Mismatch(BaseEvent, frozen=True, tag="mismatch"):
    """Elements of an output view differ from the exact result; the first one is shown. `origin` is where it came from,
    if that is sure. `had_poison`: whether the harness had put poison in its place before the call. `untouched`: so many
    of the wrong elements, from the first one on, hold the poison that was put there."""

    buffer: str
    elements: int
    of: int
    index: int
    chunk: int
    expected: str
    found: str
    origin: Origin | None = None
    had_poison: bool = True
    untouched: int = 0


class _Elements(BaseEvent, frozen=True):
    """So many elements `of` a view are not as they were; the first one is shown, before and after."""

    buffer: str
    elements: int
    of: int
    index: int
    before: str
    after: str


class Changed(_Elements, frozen=True, tag="changed"):
    """Elements of an output view changed after the call had returned."""


class Overwritten(BaseEvent, frozen=True, tag="overwritten"):
    """Canaries of a buffer changed: `where` is front (in front of it), guard (behind it) or fence (beside an output
    view). Or replay: elements of a buffer that is no operand of the graph that ran."""

    buffer: str
    where: str
    index: int
    elements: int


class Touched(BaseEvent, frozen=True, tag="touched"):
    """Bytes changed where no call may write: `changed` of those from `address` up to `end`, in a live buffer, or with
    no `buffer` in free memory of a segment. The first ones are shown, before and after. `when`: during the step's call
    or replay, while calls were in flight, or between the call before and this step. Outside every pool `segment` is
    -1."""

    when: str
    buffer: str
    segment: int
    address: int
    end: int
    changed: int
    before: str
    after: str


class SourceChanged(_Elements, frozen=True, tag="source-changed"):
    """Elements of a call's source, its output left out, are not as they were put there."""


LostWhen = Literal["call", "replay", "flight", "between", "by"]


class Lost(_Elements, frozen=True, tag="lost"):
    """Elements that the call at step `call` left, of its output or of its source, are not as they were, and the program
    wrote nothing there. `address` is that of the first one. Without a `buffer` they are of a tensor that a plug-in
    returned.

    since     the step at which they were last seen whole
    when      they changed in this step's call or replay; or by the time that this step had waited for all in flight; or
              between that step and this one's call; or by the end of this step's call
    captured  of a replay, the step of the call that it ran again
    by        the step of a later call that returned the same memory
    """

    call: int
    role: Role
    since: int
    when: LostWhen
    address: int
    captured: int = -1
    by: int = -1


class PadOverwritten(BaseEvent, frozen=True, tag="pad-overwritten"):
    """Words beside this rank's pad of a group changed: `pad` is the signal pad or that of the barrier. `index` of the
    first from the pad's first word on, negative before it; `found`: what it held."""

    group: GroupId
    pad: str
    index: int
    words: int
    found: str


Provision = Literal["workspace", "flags"]
"""What the harness provides for a plug-in."""


class WorkspaceOverwritten(BaseEvent, frozen=True, tag="workspace-overwritten"):
    """Bytes beside this rank's workspace of a group, or its flags, changed: `index` of the first from the first byte of
    those `nbytes` on, negative before it; `found`: what lay there."""

    group: GroupId
    what: Provision
    nbytes: int
    index: int
    changed: int
    found: str


class Unmapped(BaseEvent, frozen=True, tag="unmapped"):
    """This rank touched an address where no window has its memory, now or any more: `offset` bytes from where `peer`'s
    segment had begun for `window`, the last one that had an address there in this draw, or -1; that may be the number
    of a workspace (`Provided`). A read is known by its page. `found`: the first bytes that were written there, if not
    zeros."""

    window: int
    peer: int
    offset: int
    found: str


class Strayed(BaseEvent, frozen=True, tag="strayed"):
    """Read through the peer pointer to `peer`'s part of a buffer, this is not the stamp that `peer` wrote there."""

    buffer: str
    peer: int
    found: str


class Differs(BaseEvent, frozen=True, tag="differs"):
    """Two runs of a call left different bits in an output; the first ones are shown. `is_by_path`: the second run was
    made on the legacy path; else it was made like the first."""

    buffer: str
    elements: int
    of: int
    index: int
    first: str
    second: str
    is_by_path: bool = True
