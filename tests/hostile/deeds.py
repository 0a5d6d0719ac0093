"""Hostile plug-ins, named `tests.hostile.deeds:PLACE_DEED`: what each does, and where.

A deed is done by rank 1 alone or by all ranks, at each visit of its place. Pools are sound otherwise.
"""

from __future__ import annotations

import builtins
import ctypes
import gc
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.system.collectives import TritonCollectives
from harness.system.context import ProcessGroup, RankContext
from harness.system.pools.per_group import PerGroup

ODD = "\x1b[31mred\x07 [/red] \u202e back\r\n\x00 next \ud800"
NAP = 3600.0


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot be put into words")

    __repr__ = __str__


class Slow(BaseException):
    pass


def raises_an_error() -> None:
    raise ValueError("not today")


def raises_odd_words() -> None:
    raise RuntimeError(ODD)


def raises_megabytes() -> None:
    raise RuntimeError("much " * 2_000_000)


def raises_unprintable() -> None:
    raise Unprintable


def raises_base_exception() -> None:
    raise Slow("of no kind that is known")


def raises_system_exit() -> None:
    sys.exit(0)


def raises_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def raises_generator_exit() -> None:
    raise GeneratorExit


def raises_stop_iteration() -> None:
    raise StopIteration


def raises_memory_error() -> None:
    raise MemoryError


def raises_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory, or so it says")


def raises_eof_error() -> None:
    raise EOFError


def raises_connection_error() -> None:
    raise BrokenPipeError("of its own")


def raises_a_group() -> None:
    raise BaseExceptionGroup("many", [ValueError("one"), KeyboardInterrupt()])


def raises_forever_caused() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def recurses() -> None:
    recurses()


def exits_with_0() -> None:
    os._exit(0)


def exits_with_3() -> None:
    os._exit(3)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def crashes() -> None:
    ctypes.memset(0, 0, 1)


def aborts() -> None:
    os.abort()


def kills_its_zygote() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def forks_and_naps() -> None:
    if os.fork() == 0:
        time.sleep(NAP)
        os._exit(0)


def forks_and_comes_back() -> None:
    os.fork()


def leaves_a_daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(NAP)
        os._exit(0)


def starts_a_program() -> None:
    subprocess.Popen(["sleep", str(NAP)])


def starts_threads() -> None:
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(NAP,)).start()


def starts_a_spinning_thread() -> None:
    threading.Thread(target=_spin, daemon=True).start()


def _spin() -> None:
    while True:
        pass


def spins() -> None:
    _spin()


def naps() -> None:
    time.sleep(NAP)


def closes_descriptors() -> None:
    os.closerange(3, 1024)


def closes_standard_ones() -> None:
    os.closerange(0, 3)


def prints_megabytes() -> None:
    for _ in range(50):
        print("much " * 20_000, flush=True)
        print("more " * 20_000, file=sys.stderr, flush=True)


def prints_odd_words() -> None:
    os.write(1, ODD.encode(errors="replace") * 20 + b"\xff\xfe\x9b")
    os.write(2, ODD.encode(errors="replace") * 20 + b"\xff\xfe\x9b")


def prints_odd_words_and_dies() -> None:
    prints_odd_words()
    os._exit(9)


def takes_stdout_away() -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


def blocks_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    naps()


def ignores_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def changes_state() -> None:
    os.chdir("/")
    os.environ.clear()
    os.umask(0o777)
    sys.path.clear()
    sys.setrecursionlimit(90)
    torch.set_default_dtype(torch.float64)
    random.seed(0)
    gc.enable()


def lowers_limits() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def allocates_wildly() -> None:
    kept = [torch.empty(1 << 20, dtype=torch.uint8) for _ in range(300)]
    torch.empty(1 << 46, dtype=torch.uint8)
    kept.clear()


def replaces_torch() -> None:
    torch.empty = lambda *_, **__: None  # type: ignore[assignment]
    torch.equal = lambda *_, **__: True  # type: ignore[assignment]
    torch.from_numpy = None  # type: ignore[assignment]


def replaces_builtins() -> None:
    builtins.len = lambda _: 7
    builtins.isinstance = lambda *_: True


def removes_modules() -> None:
    for name in [name for name in sys.modules if name.startswith(("harness.", "torch."))]:
        del sys.modules[name]


def collects_garbage_with_an_error() -> None:
    class Bitter:
        def __del__(self) -> None:
            raise RuntimeError("at the end")

    Bitter()
    gc.collect()


DEEDS: dict[str, Callable[[], None]] = {
    name: deed
    for name, deed in list(globals().items())
    if callable(deed) and name[0].islower() and name != "contextmanager"
}
MODEST = ("naps", "spins", "stops_itself", "blocks_signals")
"""Deeds that end at the deadline of a draw alone."""


class Hostile(PerGroup):
    deed: str
    place: str
    is_everybody = False

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self._at("init")

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        self._at("use")
        with super().use(group):
            yield
        self._at("leave")

    def close(self) -> None:
        self._at("close")
        super().close()

    def _at(self, place: str) -> None:
        if place == self.place and (self.is_everybody or self._context.rank == 1):
            DEEDS[self.deed]()


class HostileKernels(TritonCollectives):
    deed: str

    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        super().all_gather(context, output, source)
        if context.rank == 1:
            DEEDS[self.deed]()

    def reduce_scatter(self, context: Any, output: Any, source: Any, op: Any) -> None:
        if context.rank == 1:
            DEEDS[self.deed]()
        super().reduce_scatter(context, output, source, op)


class ReturnsNothing(PerGroup):
    def use(self, group: ProcessGroup) -> Any:
        return None


class ReturnsANumber(PerGroup):
    def use(self, group: ProcessGroup) -> Any:
        return 7


class YieldsTwice(PerGroup):
    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        yield
        yield


class YieldsNever(PerGroup):
    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        return
        yield


class SwallowsErrors(PerGroup):
    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        try:
            with super().use(group):
                yield
        except BaseException:
            pass


class ClosesTwice(PerGroup):
    def close(self) -> None:
        super().close()
        super().close()


class ClosesNothing(PerGroup):
    def close(self) -> None:
        pass


class AgreesOnText(PerGroup):
    def agreed(self, sizes: Any) -> Any:
        return "many"


class AgreesOnLess(PerGroup):
    def agreed(self, sizes: Any) -> Any:
        return -1


class AgreesOnMuch(PerGroup):
    def agreed(self, sizes: Any) -> Any:
        return 1 << 70


class AgreesWithNobody(PerGroup):
    def agreed(self, sizes: Any) -> Any:
        return random.SystemRandom().randrange(1, 1 << 20)


class ExchangesWide(PerGroup):
    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        group.exchange(1 << 80)
        with super().use(group):
            yield


class WritesToPads(TritonCollectives):
    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        for address in context.signal_pads.tolist():
            ctypes.memset(address, 0xFF, 4 * context.size)
        super().all_gather(context, output, source)


class WritesEverywhere(TritonCollectives):
    def all_gather(self, context: Any, output: Any, source: Any) -> None:
        for address in context.peer_addresses(output).tolist():
            ctypes.memset(address - 256, 0xFF, 512)


class WritesOverTheHeap(PerGroup):
    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            yield
        shared: Any = self._context._substrate
        for name in ("_shared", "shared", "memory"):
            if hasattr(shared, name):
                held = getattr(shared, name)
                held.counters[...] = -1


class TakesAnything:
    """Not a pool at all: every attribute is there."""

    def __init__(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> bool:
        return True


class NeedsNothing:
    """Built with no argument."""

    def use(self) -> None:
        pass

    def close(self, more: int) -> None:
        pass


NUMBER = 7
NOTHING = None
WORD = "[bold]a word[/]"


def __getattr__(name: str) -> type:
    """`init_naps`, `use_crashes`, `everybody_use_recurses`, `kernel_aborts` …"""
    who, _, deed = name.partition("_")
    place, is_everybody = who, False
    if who == "everybody":
        is_everybody, (place, _, deed) = True, deed.partition("_")
    if deed not in DEEDS or place not in ("init", "use", "leave", "close", "kernel"):
        raise AttributeError(name)
    if place == "kernel":
        return type(name, (HostileKernels,), {"deed": deed})
    return type(name, (Hostile,), {"deed": deed, "place": place, "is_everybody": is_everybody})
