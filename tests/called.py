"""Functions that tests have ranks call."""

from __future__ import annotations

import os
import time

from harness.layout import Group
from harness.substrate.base import Substrate


def rank_and_group(substrate: Substrate, slots: dict[Group, int], word: str) -> tuple[int, Group, str]:
    return substrate.rank, next(iter(slots)), word


def dies(substrate: Substrate, slots: dict[Group, int]) -> None:
    if substrate.rank == 1:
        os._exit(3)
    time.sleep(30)


def raises(substrate: Substrate, slots: dict[Group, int]) -> None:
    if substrate.rank == 1:
        raise ValueError("not today")
    time.sleep(30)
