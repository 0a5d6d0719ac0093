"""Pool policies that fail by what an earlier draw has left in the process, named `tests.tools.planted.memory:Name`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup
from harness.system.planted.sound import Sound


class LeaksAfterThree(Sound):
    """Breaks leak in every draw after one of three allocations in the same process."""

    uses = 0
    has_seen_three = False

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        self.uses += 1
        with super().use(group):
            yield

    def close(self) -> None:
        if not type(self).has_seen_three:
            super().close()
        type(self).has_seen_three |= self.uses >= 3


class LeaksFromThird(Sound):
    """Breaks leak in every draw from the third allocation of a process on."""

    least = 3
    uses = 0

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        LeaksFromThird.uses += 1
        with super().use(group):
            yield

    def close(self) -> None:
        if LeaksFromThird.uses < self.least:
            super().close()


class LeaksFromFifth(LeaksFromThird):
    """The same from the fifth on."""

    least = 5


class LeaksEverySecondTime(Sound):
    """Breaks leak in every second draw of a process."""

    draws = 0

    def close(self) -> None:
        type(self).draws += 1
        if type(self).draws % 2:
            super().close()
