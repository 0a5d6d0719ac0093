"""The rank processes of a world as one: started together, told things together, killed together.

Invariant: there are either all ranks, joined and ready, or none.
"""

from __future__ import annotations

import re
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from harness.errors import MachineError
from harness.ipc.memory import SharedMemory
from harness.ipc.messages import Options
from harness.world import litter
from harness.world.launcher import Launcher, RankProcess
from harness.world.platform import Platform

StartMethod = Literal["fork", "spawn"]
START_DEADLINE = 120.0
CUDA_ERROR = re.compile(r"cuda ?(driver )?error|CUDA_ERROR_|cudaGetDeviceCount|\bMPS\b", re.IGNORECASE)
"""As PyTorch writes it, in an error of its own and where it counts devices, and as names of CUDA's and NCCL's do."""
FATAL = re.compile(r"Fatal Python error: |[\w.]+(Error|Exception|Interrupt)(: |$)")
"""How a line begins that says what a process died of."""
GRACE = 0.5
"""Seconds for the other ranks to say what befell them, once one has failed."""
PAUSE = 0.5
"""Seconds between two attempts to start ranks."""


class _Died(MachineError):
    """A rank was gone when it should have answered."""


class Crew:
    """`size` ranks on one platform over one shared memory, from one zygote (`fork`) or one each (`spawn`)."""

    def __init__(self, size: int, platform: Platform, shared: SharedMemory, method: StartMethod) -> None:
        self.size, self.platform = size, platform
        self.facts: dict[str, Any] = {}
        """What the first rank says of itself once it stands."""
        self.ranks: list[RankProcess] = []
        self.nodes: tuple[int, ...] = (0,) * size
        """The node that each rank is started on, where the platform binds them to one."""
        self._shared, self._method = shared, method
        self._launchers: list[Launcher] = []
        self._sizes: set[int] = set()

    def muster(self) -> None:
        """Start what is not there. Raises `MachineError`."""
        if not self._launchers:
            self._launch()
        end = time.monotonic() + self.platform.recovery
        try:
            while not self.ranks:
                self._start(again=time.monotonic() < end)
        except BaseException:
            self.close()
            raise

    def announce(self, size: int) -> None:
        """Tell the ranks that will idle of a new world size; those of the draw learn it with the draw."""
        if size in self._sizes:
            return
        for rank in self.ranks:
            rank.send(("world", size))
        try:
            self._collect()
            self._sizes.add(size)
        except _Died:
            pass  # the draw finds the dead rank, and tells of its end
        except BaseException:
            self.dismiss()
            raise

    def dismiss(self) -> list[int]:
        """Kill every rank. Returns wait statuses in rank order."""
        statuses: dict[int, int] = {}
        ranks, self.ranks = self.ranks, []
        left: set[Path] = set()
        try:
            left = self._mapped(ranks)
            for launcher in self._launchers:
                statuses |= launcher.kill([rank.pid for rank in ranks if rank.launcher is launcher])
        except BaseException:  # answers of the launchers may be on their way still
            self._close_launchers()
            raise
        finally:
            for rank in ranks:
                rank.close()
            litter.remove(left)
        return [statuses.get(rank.pid, 0) for rank in ranks]

    def close(self) -> None:
        """End every process. May be called twice."""
        left: set[Path] = set()
        try:
            left = self._mapped(self.ranks)
        finally:
            self._close_launchers()
            for rank in self.ranks:
                rank.close()
            self.ranks = []
            litter.remove(left)

    def _mapped(self, ranks: list[RankProcess]) -> set[Path]:
        """What NCCL would leave of them."""
        return litter.mapped(rank.pid for rank in ranks) if self.platform.gpus else set()

    def _close_launchers(self) -> None:
        """End what ranks are forked from, and so the ranks."""
        launchers, self._launchers = self._launchers, []
        for launcher in launchers:
            launcher.close()

    def _launch(self) -> None:
        """Start what ranks are forked from, and wait until it has imported what they need."""
        for _ in range(1 if self._method == "fork" else self.size):
            self._launchers.append(Launcher(self._shared, self.platform.environment, self.platform.preload))
        for launcher in self._launchers:
            launcher.wait_ready()

    def _start(self, again: bool) -> None:
        """Start every rank. Where CUDA refuses and it may be tried `again`, there are none after a moment."""
        try:
            self._start_each()
        except MachineError as error:
            if not self.platform.recovery or not CUDA_ERROR.search(str(error)):
                raise
            if not again:
                raise MachineError(f"{error}, also after {self.platform.recovery:g} s") from error
            self.dismiss()
            self._shared.reset()
            time.sleep(PAUSE)

    def _start_each(self) -> None:
        self._sizes.clear()
        for index in range(self.size):
            launcher = self._launchers[index % len(self._launchers)]
            options = Options(
                rank=index,
                processes=self.size,
                substrate=self.platform.name,
                gpu=self.platform.gpu_of(index),
                environment=self.platform.rank_environment(index, self.nodes),
                parent=0,
                evidence=self.platform.evidence,
            )
            self.ranks.append(launcher.start(options))
        replies = self._collect()
        self.facts = replies[0][1]
        token = self.facts.pop("token", None)
        if token is not None:
            for rank in self.ranks:
                rank.send(("join", token))
            self._collect()

    def _collect(self) -> list[tuple[Any, ...]]:
        """One reply from each rank outside a draw. Raises `_Died` if one is gone, `MachineError` if one fails.

        Of several that fail at once, one that CUDA refused is told of: the others may have failed for want of it.
        """
        waiting: dict[Connection, int] = {rank.connection: index for index, rank in enumerate(self.ranks)}
        replies: dict[int, tuple[Any, ...]] = {}
        failures: list[MachineError] = []
        end = time.monotonic() + START_DEADLINE
        while waiting:
            ready = wait(list(waiting), GRACE if failures else max(0.0, end - time.monotonic()))
            if not ready and not failures:
                raise MachineError(f"rank {min(waiting.values())} did not start within {START_DEADLINE:.0f} s")
            if not ready:
                break
            for connection in ready:
                assert isinstance(connection, Connection)
                index = waiting.pop(connection)
                try:
                    replies[index] = connection.recv()
                except (EOFError, ConnectionError):
                    words = _last_error(self.ranks[index].printed())
                    failures.append(_Died(f"rank {index} died while starting: {words}"))
                    continue
                if replies[index][0] in ("failed", "refused", "broken"):
                    failures.append(MachineError(f"rank {index} cannot start: {replies[index][1]}"))
        for failure in sorted(failures, key=lambda one: not CUDA_ERROR.search(str(one))):
            raise failure
        return [replies[index] for index in range(len(self.ranks))]


def _last_error(printed: str) -> str:
    """What an exception said in its first line, of the last one that was printed; else the last line."""
    lines = printed.splitlines() or ["no message"]
    return next((line for line in reversed(lines) if FATAL.match(line)), lines[-1])
