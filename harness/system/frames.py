"""Where the system under test raised: the frames of an exception, and which of them are its own.

Invariant: a frame of the harness, of Python's own library or of an installed package is not the system's, unless it is
of a built-in system, or of the package that a plug-in is named by. No exception is so odd that reading it raises.
"""

from __future__ import annotations

import inspect
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, NamedTuple

from harness.trace.raising import Frame, Part, Raising

FRAMES = 50
"""Innermost frames that are kept."""
LINES = 200
"""Last lines of a traceback that are kept."""
LONGEST = 2000
"""Characters that are kept of a message, and of such a line."""
HOUSE = f"{Path(__file__).parents[1]}{os.sep}"
BUILT_IN = tuple(f"{HOUSE}{part}/" for part in ("system/pools", "system/planted", "kernels"))
BESIDE = f"{HOUSE}system/collectives.py", "TritonCollectives."
"""The built-in collectives, by file and name: the harness has code beside them."""
STANDARD = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))
INSTALLED = "/site-packages/", "/dist-packages/"
LIBRARIES = "torch", "triton", "numpy", "nccl", "cuda", "harness"
"""Installed packages with code of which the harness works."""
OTHER, SHIPPED, USERS = 0, 1, 2
"""Whose a frame is: of no system under test, of a built-in one, of a user's."""


class _Seen(NamedTuple):
    frame: Frame
    whose: int


def raising(where: Part, error: BaseException, packages: Collection[str] = ()) -> Raising:
    """What `error` says. Of an exception that a library made of another one, kind, message and place are the other's.
    `packages` are those of the plug-ins: their frames are the system's also where they are installed."""
    root, seen = _root(error, packages)
    whose = max((each.whose for each in seen), default=OTHER)
    frames = [_owned(each.frame) if whose and each.whose == whose else each.frame for each in seen]
    kept = [frame for index, frame in enumerate(frames) if index < FRAMES or frame.is_own]
    return Raising(where, type(root).__name__, _message(root), tuple(kept[: 2 * FRAMES]), _whole(error))


def is_own(error: BaseException) -> bool:
    """Whether it came through code that is not the harness's, nor of a library that the harness calls itself."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(_package(code.co_filename) not in ("", *LIBRARIES) or _whose(code, ()) for code in codes)


def innermost(error: BaseException, packages: Collection[str] = ()) -> tuple[TracebackType | None, int]:
    """A traceback, and in it, counted from the outermost, the innermost frame of the system under test."""
    root, _ = _root(error, packages)
    whose = [_whose(frame.f_code, packages) for frame, _ in traceback.walk_tb(root.__traceback__)]
    own = [index for index, each in enumerate(whose) if each and each == max(whose)]
    return root.__traceback__, own[-1] if own else len(whose) - 1


def _root(error: BaseException, packages: Collection[str]) -> tuple[BaseException, list[_Seen]]:
    """The exception that was raised first, of those that libraries made of one another, and all frames to there."""
    root, seen, known = error, _frames(error, packages), {id(error)}
    # Triton's interpreter raises an error of its own for whatever a kernel raises, and its traceback ends in Triton
    while not (seen and seen[0].whose) and (cause := root.__cause__) is not None:
        inner = _frames(cause, packages)
        if id(cause) in known or not any(each.whose for each in inner):
            break
        known.add(id(cause))  # causes may go in a circle
        root, seen = cause, inner + seen
    return root, seen


def described(error: BaseException) -> str:
    """Such as `ValueError: no room`."""
    return f"{type(error).__name__}: {_message(error)}"


def defined(thing: Any) -> str:
    """Where a function or a class is defined, such as `use, pools.py:12`; its name alone where that cannot be seen."""
    thing = inspect.unwrap(thing)
    name = getattr(thing, "__name__", type(thing).__name__)
    try:
        file, (_, line) = inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)
    except (OSError, TypeError):
        return f"{name}"
    return f"{name}, {os.path.basename(file)}:{line}"


def _frames(error: BaseException, packages: Collection[str]) -> list[_Seen]:
    """The frames of one exception, innermost first."""
    return [
        _Seen(_frame(frame.f_code, line), _whose(frame.f_code, packages))
        for frame, line in reversed([*traceback.walk_tb(error.__traceback__)])
    ]


def _frame(code: CodeType, line: int) -> Frame:
    source = _text(lambda: linecache.getline(code.co_filename, line).strip())
    return Frame(code.co_name, _plain(code.co_filename), line, source)


def _owned(frame: Frame) -> Frame:
    return Frame(frame.function, frame.file, frame.line, frame.source, is_own=True)


def _whose(code: CodeType, packages: Collection[str]) -> int:
    file, name = code.co_filename, code.co_qualname
    if file.startswith(HOUSE):
        is_shipped = file.startswith(BUILT_IN) or (file == BESIDE[0] and name.startswith(BESIDE[1]))
        return SHIPPED if is_shipped else OTHER
    if package := _package(file):
        return USERS if package in packages else OTHER
    if not os.path.isabs(file) and not os.path.exists(file):  # compiled, as by Cython: such as numpy/random/mtrand.pyx
        return USERS if file.split("/")[0].partition(".")[0] in packages else OTHER
    return OTHER if file.startswith((*STANDARD, "<")) else USERS


def _package(file: str) -> str:
    """The installed package that a file is of; empty where it is of none."""
    folder = next((folder for folder in INSTALLED if folder in file), "")
    return file.rpartition(folder)[2].split("/")[0].removesuffix(".py") if folder else ""


def _message(error: BaseException) -> str:
    return _text(lambda: str(error))


def _whole(error: BaseException) -> tuple[str, ...]:
    """Python's own text of the whole chain, a line each."""
    lines = _text(lambda: "".join(traceback.format_exception(error)), -1).splitlines()
    return tuple(line[:LONGEST] for line in lines[-LINES:])


def _text(make: Callable[[], str], longest: int = LONGEST) -> str:
    """Text of a plug-in's making, which may fail, or hold what no file of JSON can."""
    try:
        return _plain(make()[:longest] if longest > 0 else make())
    except Exception as error:
        return f"its text raised {type(error).__name__}"


def _plain(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
