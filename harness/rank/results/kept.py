"""Results and sources that calls have left: they stay as they are until the program writes there or lets them go.

Invariant: a look takes no part in what runs. What the program is about to write over is copied before, and judged with
the call's own result. A loss is recorded once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from harness.rank.exact import changed
from harness.rank.own import equal
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.trace.calls import Role
from harness.trace.damage import Lost, LostWhen

RETURNED = 7
"""Tensors that plug-ins returned and that are kept, as an engine keeps those of its last layers."""


class Held:
    """What the call at step `call` left at `view`: it held `was`. `parts` of it are still to stay, as elements.

    Without a `buffer`, `view` is a tensor that the plug-in returned. `captured`: the call that a replay ran again.
    """

    def __init__(
        self, call: int, role: Role, buffer: str, view: torch.Tensor, was: torch.Tensor, captured: int = -1
    ) -> None:
        self.call, self.role, self.buffer, self.captured = call, role, buffer, captured
        self.view, self._was = view, was
        self.address, self._width = view.data_ptr(), view.element_size()
        self.parts = [slice(0, view.numel())] if view.numel() else []
        self._pairs = [(part, bits(view), bits(was)) for part in self.parts]
        self.since, self.by = call, -1
        """The step of the last look, and that of a call which returned the same memory."""
        self.is_lost = False

    @property
    def end(self) -> int:
        return self.address + self.view.numel() * self._width

    def meets(self, other: torch.Tensor) -> bool:
        """Whether they share memory."""
        start = other.data_ptr()
        return start < self.end and self.address < start + other.numel() * other.element_size()

    def cut(self, other: torch.Tensor) -> list[slice]:
        """Take the elements out that share memory with `other`. Returns them."""
        start, size = other.data_ptr() - self.address, other.numel() * other.element_size()
        low, high = max(0, start // self._width), max(0, -(-(start + size) // self._width))
        pieces = [(part, max(part.start, low), min(part.stop, high)) for part in self.parts]
        taken = [slice(first, last) for _, first, last in pieces if first < last]
        left = [
            piece
            for part, first, last in pieces
            for piece in ((slice(part.start, first), slice(last, part.stop)) if first < last else (part,))
        ]
        self.parts = [part for part in left if part.start < part.stop]
        self._pairs = [(part, bits(self.view[part]), bits(self._was[part])) for part in self.parts]
        return taken

    def changed_part(self) -> slice | None:
        """The first part that is not as it was; None if all are. Waits for the device."""
        return next((part for part, view, was in self._pairs if not equal(view, was)), None)

    def lose(self) -> None:
        """It is lost, which is said once."""
        self.is_lost, self.parts, self._pairs = True, [], []

    def lost(self, when: LostWhen, part: slice, now: torch.Tensor) -> Lost | None:
        """What differs in a part that holds `now`; None if nothing does."""
        change = changed(self.buffer, self._was[part], now)
        if change is None:
            return None
        index = part.start + change.index
        return Lost(
            self.buffer,
            change.elements,
            self.view.numel(),
            index,
            change.before,
            change.after,
            self.call,
            self.role,
            self.since,
            when,
            self.address + index * self._width,
            self.captured,
            self.by,
        )


class Kept:
    """What calls have left on this rank. Local. Where `is_watched`, all of it is looked at around every call."""

    def __init__(self, substrate: Substrate, is_watched: bool) -> None:
        self._substrate, self._is_watched = substrate, is_watched
        self._held: list[Held] = []
        self._returned: list[Held] = []
        self._copies: list[tuple[Held, slice, torch.Tensor]] = []
        self._step = -1

    def began(self, step: int) -> None:
        """The program is at that step now."""
        self._step = step

    def before(self, *written: torch.Tensor) -> None:
        """A call is about to run, and the program writes to all of `written`."""
        looks, is_watched = not self._substrate.device.does_later, self._is_watched
        if looks and is_watched:
            self._look("between", (*self._held, *self._returned))
        gone = self.let_go(*written)
        if looks and not is_watched:
            self._copies = [(held, part, held.view[part].clone()) for held, part in gone]

    def let_go(self, *written: torch.Tensor) -> list[tuple[Held, slice]]:
        """Keep nothing that lies in `written` any more. Returns what that was."""
        met = [held for held in self._held if any(map(held.meets, written))]
        gone = [(held, part) for held in met for each in written for part in held.cut(each)]
        self._held = [held for held in self._held if held.parts]
        return gone

    def after(self, when: LostWhen) -> None:
        """The call or replay is through, and so is all that the device had to do."""
        for held, part, copy in self._copies:
            self._record(held, held.lost("between", part, copy))
        self._copies.clear()
        if self._is_watched:
            self._look(when, self._held)
        self._look(when if self._is_watched else "by", self._returned)
        for held in self._returned:
            held.by = -1  # what is whole now is lost to something else

    def hold(self, role: Role, buffer: str, view: torch.Tensor, was: torch.Tensor, captured: int = -1) -> None:
        """Keep what this step's call left in a buffer."""
        self._held.append(Held(self._step, role, buffer, view, was, captured))

    def hold_source(self, buffer: str, view: torch.Tensor, was: torch.Tensor, output: torch.Tensor) -> None:
        """Keep what this step's call left of its source, without what is output."""
        held = Held(self._step, "source", buffer, view, was)
        held.cut(output)
        if held.parts:
            self._held.append(held)

    def write_again(self, tensor: torch.Tensor, into: torch.Tensor | None = None) -> None:
        """A call that returned a tensor runs again: its new result is `into`, or will lie where the old one does. Of
        two in one place, the new one alone is kept."""
        new = tensor if into is None else into
        self._returned = [
            held for held in self._returned if held.view is not tensor or not (new is tensor or held.meets(new))
        ]
        self.came(new)

    def came(self, tensor: torch.Tensor) -> None:
        """A plug-in has returned a tensor: who has the same memory loses it to this step's call."""
        for held in self._returned:
            if held.meets(tensor):
                held.by = self._step

    def hold_returned(self, tensor: torch.Tensor, was: torch.Tensor, captured: int = -1) -> None:
        """Keep a tensor that a plug-in returned, and let go of the oldest if these are too many."""
        self._returned.append(Held(self._step, "output", "", tensor, was, captured))
        self._look("by", self._returned[:-RETURNED])
        del self._returned[:-RETURNED]

    def make_room(self, tensors: int) -> None:
        """So many were returned in flight: let go of the oldest, which the plug-in may have written over since."""
        del self._returned[: max(0, len(self._returned) + min(tensors, RETURNED) - RETURNED)]

    def drop(self, buffer: str) -> None:
        """A buffer is about to go."""
        mine = [held for held in self._held if held.buffer == buffer]
        if not self._substrate.device.does_later:  # what runs then, and may be read, is not known
            self._look("between", mine)
        self._held = [held for held in self._held if held.buffer != buffer]

    def end(self) -> None:
        """Look at everything for the last time, and let it go."""
        self._look("between", (*self._held, *self._returned))
        self._held.clear()
        self._returned.clear()

    def _look(self, when: LostWhen, looked_at: Iterable[Held]) -> None:
        for held in looked_at:
            if (part := held.changed_part()) is not None:
                # one image is judged, as a peer may write on meanwhile
                self._record(held, held.lost(when, part, held.view[part].clone()))
            held.since = self._step

    def _record(self, held: Held, lost: Lost | None) -> None:
        """One loss of a result is enough."""
        if lost is not None and not held.is_lost:
            self._substrate.record(lost)
            held.lose()
