"""Accounts and runs as HTML pages: one file each, which loads nothing and needs no script.

Invariant: text of a seed or a rank reaches a page as text, escaped and without control characters.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from harness.report.pages.account import Account, Chunk
from harness.report.pages.figures import speed_svg, waits_svg
from harness.report.pages.placing import lanes_view, memory_view
from harness.report.pages.runs import Report
from harness.scenario.operands import BACK, FRONT
from harness.text import counted, visible

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> Environment:
    """The templates, with what they may call."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (most commands draw no page)

    made = Environment(
        loader=PackageLoader("harness.report.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.globals |= {
        "memory_view": memory_view,
        "lanes_view": lanes_view,
        "waits_svg": waits_svg,
        "speed_svg": speed_svg,
        "share": _share,
        "canaries": (FRONT, BACK),
    }
    made.filters["counted"] = counted
    made.filters["capital"] = lambda text: text[:1].upper() + text[1:]
    return made


def _shown(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _share(chunk: Chunk) -> float:
    """How wide a chunk is drawn: small ones are to be seen, too."""
    return round(1 + math.sqrt(chunk.end - chunk.start), 2)


def seed_page(account: Account) -> str:
    """The page of a seed."""
    return environment().get_template("seed.html").render(account=account)


def report_page(report: Report) -> str:
    """The page of runs."""
    return environment().get_template("report.html").render(report=report)
