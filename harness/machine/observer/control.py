"""The observer as a process of the harness reaches it: what it calls back, denies, refuses and holds.

Invariant: nothing here loads NCCL. A process without an observed NCCL has no `Observer`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from harness.machine.observer.build import NCCL
from harness.machine.observer.facts import Fact
from harness.machine.observer.layout import FACT, Fields, meant

_Heard = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


class Observer:
    """The observer of this process. `find` gives it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._library.symm_observer_communicator.argtypes = (ctypes.c_uint32,)
        self._library.symm_observer_communicator.restype = ctypes.c_void_p
        self._library.symm_observer_refuse.argtypes = (ctypes.c_void_p, ctypes.c_int)
        self._library.symm_observer_listen.argtypes = (_Heard,)
        self._library.symm_observer_real.restype = ctypes.c_char_p
        self._heard: object = None  # ctypes keeps no reference to what it calls

    @classmethod
    def find(cls) -> Observer | None:
        """The observer, if it is what this process has loaded under NCCL's name."""
        with suppress(OSError):
            library = ctypes.CDLL(NCCL, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            if hasattr(library, "symm_observer_layout"):
                return cls(library)
        return None

    @property
    def real(self) -> str:
        """Path of the NCCL behind it."""
        return bytes(self._library.symm_observer_real()).decode()

    @contextmanager
    def muted(self) -> Iterator[None]:
        """What this thread calls meanwhile is forwarded, and neither written nor called back."""
        self._library.symm_observer_mute(1)
        try:
            yield
        finally:
            self._library.symm_observer_mute(-1)

    def listen(self, callback: Callable[[Fact], None] | None) -> None:
        """Call `callback` with every fact but those of calls and groups, in the thread that makes it; None: no more.

        `RegisterEntered` and `Freed` come before NCCL is called, the others after it returned. The callback must not
        raise: the call goes on.
        """

        def hear(fact: int, name: bytes) -> None:
            assert callback is not None
            fields = Fields(*FACT.unpack(ctypes.string_at(fact, FACT.size)))
            text = name.decode("utf-8", "replace")
            callback(meant(fields._replace(site=0, name=1), ("", text).__getitem__))

        heard = _Heard(hear) if callback else _Heard(0)
        self._library.symm_observer_listen(heard)
        self._heard = heard

    def address(self, comm: int) -> int | None:
        """The `ncclComm_t` of the communicator that facts number `comm`; None if it is gone."""
        found = self._library.symm_observer_communicator(comm)
        return None if found is None else int(found)

    def deny_next(self, count: int = 1) -> None:
        """The next `count` allocations of this process fail as if the GPU had no room."""
        self._library.symm_observer_deny_next(count)

    def refuse(self, address: int | None) -> None:
        """Registrations of memory that begins at `address` fail here; their peers wait. None: no more."""
        self._library.symm_observer_refuse(address, address is not None)

    def hold_frees(self, is_on: bool) -> None:
        """Keep segments that are freed under a live window."""
        self._library.symm_observer_hold_frees(is_on)

    def release_held(self) -> int:
        """Free what was held back. Returns NCCL's first error, or 0."""
        return int(self._library.symm_observer_release_held())
