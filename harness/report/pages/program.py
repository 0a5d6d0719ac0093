"""The steps of a program in words.

Invariant: what a step leaves at its default is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.scenario.bases import BaseStep, CollectiveStep
from harness.scenario.operands import View
from harness.scenario.steps import Allocate, Ballast, Recreate, Release, Step


def step_text(step: Step) -> str:
    """A step in words, defaults left out."""
    match step:
        case Allocate():
            where = "" if step.role == "window" else ", in ordinary memory"
            return f"{step.buffer}: {_count(step.elements)} × {step.dtype} for {step.family}{where}{_groups(step)}"
        case Ballast():
            return f"{step.buffer}: {step.size:,} bytes on rank {step.rank} alone, in its pool of {step.family}"
        case Release():
            return step.buffer
        case Recreate():
            return f"the communicators of {step.family}"
        case CollectiveStep():
            return _call(step)
    fields = (f"{name} {value}" for name, value in _fields(step))
    return ", ".join(fields)


def _call(step: CollectiveStep) -> str:
    views = [f"{role} {_view(view)}" for role in ("source", "output") if (view := getattr(step, role)) is not None]
    place = " in place" if len(views) == 1 else ""
    op = f", {step.op}" if step.op else ""
    via = {"library": "", "kernel": ", by the kernel under test", "copy-engine": ", by copy engines"}[step.via]
    return f"on {step.family}: {', '.join(views)}{place}, count {_count(step.count)}{op}{via}{_groups(step)}"


def _view(view: View) -> str:
    return f"{view.buffer}+{view.offset}" if view.offset else view.buffer


def _count(elements: int | tuple[int, ...]) -> str:
    if isinstance(elements, int):
        return f"{elements:,}"
    return "/".join(map(str, elements[:8])) + ("/…" if len(elements) > 8 else "")


def _groups(step: BaseStep) -> str:
    return "" if step.groups is None else f", only in {' '.join(str([*group]) for group in step.groups)}"


def _fields(step: Step) -> Iterator[tuple[str, object]]:
    for name in step.__struct_fields__:
        value = getattr(step, name)
        if value not in (None, False, 0) or (name == "rank" and value is not None):
            yield name, value
