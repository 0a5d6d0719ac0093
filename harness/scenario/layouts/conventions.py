"""The conventions: whose arithmetic turns degrees into families.

A new convention is a module here that has what `Convention` lists, and a line in `CONVENTIONS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from harness.errors import not_one_of
from harness.scenario.layouts import megatron, megatron_core, sglang, tensorrt_llm, torchtitan, vllm
from harness.scenario.layouts.arithmetic import Degrees
from harness.scenario.layouts.groups import Groups, LayoutError, check_family


class Convention(Protocol):
    """What a module gives."""

    DEGREES: tuple[str, ...]
    OPTIONS: tuple[str, ...]
    """What degrees may hold beside widths. A layout of fewer ranks keeps it."""

    def families(self, degrees: Degrees) -> dict[str, Groups]:
        """The families of a layout by name. Raises `LayoutError`."""

    def shares(self, degrees: Degrees) -> dict[str, str] | None:
        """For each family without communicators of its own, the family whose it uses. None: all equal groups share."""

    def candidates(self, world: int) -> Iterator[Degrees]:
        """All degrees that may make a layout of `world` ranks, in one order."""

    def drawn(self, world: int, picks: Sequence[int]) -> Degrees:
        """The degrees of a layout of `world` ranks that six drawn numbers stand for."""


CONVENTIONS: dict[str, Convention] = {
    "sglang": sglang,
    "vllm": vllm,
    "megatron": megatron,
    "megatron-core": megatron_core,
    "tensorrt-llm": tensorrt_llm,
    "torchtitan": torchtitan,
}


def build_families(convention: str, degrees: Degrees) -> dict[str, Groups]:
    """Families of a layout by name.

    `degrees` maps the convention's degree names to widths (1 where left out), and the names of its options to theirs.
    Raises `LayoutError` for an unknown convention or degree, and for degrees that do not divide, with the arithmetic.
    """
    if convention not in CONVENTIONS:
        raise LayoutError(str(not_one_of("convention", convention, sorted(CONVENTIONS))))
    families = CONVENTIONS[convention].families(degrees)
    for name, groups in families.items():
        check_family(name, groups)
    return families


def shared_families(convention: str, degrees: Degrees) -> dict[str, str] | None:
    """For each family that has no communicators of its own, the family whose it uses. None where all equal groups
    share one, of whatever families they are."""
    return CONVENTIONS[convention].shares(degrees)
