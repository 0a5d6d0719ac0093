"""Pool policies that register otherwise than whole and symmetric, named `tests.tools.planted.registers:Name`."""

from __future__ import annotations

from harness.system.context import ProcessGroup, RegistrationError, Segment
from harness.system.planted.sound import Sound


class OfParts(Sound):
    """Registers the part of a segment that `part` gives for a rank."""

    symmetric = True

    def part(self, group: ProcessGroup) -> tuple[int, int]:
        """Offset and bytes."""
        raise NotImplementedError

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        offset, nbytes = self.part(group)
        window = group.communicator.register(segment, offset=offset, nbytes=nbytes, symmetric=self.symmetric)
        if window is not None:
            self.windows.append(window)


class FirstHalf(OfParts):
    """Sound for buffers in the first MiB of a segment."""

    def part(self, group: ProcessGroup) -> tuple[int, int]:
        return 0, 1 << 20


class ShortPart(OfParts):
    """Breaks partly-registered: the windows end 4096 bytes behind the segment's start (F22)."""

    def part(self, group: ProcessGroup) -> tuple[int, int]:
        return 0, 4096


class SecondPart(OfParts):
    """Sound for buffers behind the first 4096 bytes of a segment; breaks unregistered for the others."""

    def part(self, group: ProcessGroup) -> tuple[int, int]:
        return 4096, 1 << 20


class PartsApart(OfParts):
    """Breaks no rule: the windows of odd ranks begin one page later. Peers are mapped whole, so NCCL finds the right
    bytes."""

    def part(self, group: ProcessGroup) -> tuple[int, int]:
        return 4096 * (group.rank % 2), 1 << 20


class Misaligned(OfParts):
    """Breaks raised, on rank 1 alone: its part does not start on a page."""

    def part(self, group: ProcessGroup) -> tuple[int, int]:
        return 512 * (group.rank % 2), 1 << 20


class SwallowsMisalignment(Misaligned):
    """Breaks registration-skew: rank 1 goes on without a window (F31)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        try:
            super().register(segment, group)
        except RegistrationError:
            return


class WithoutFlag(Sound):
    """Breaks unregistered: the windows lack the symmetric flag."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        window = group.communicator.register(segment, symmetric=False)
        if window is not None:
            self.windows.append(window)
