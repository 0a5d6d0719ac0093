"""What a run covered and what it never did, in a few lines."""

from __future__ import annotations

from rich.console import Console

from harness.nights.corpus import Corpus
from harness.nights.coverage import Coverage
from harness.oracle.states.state import KINDS
from harness.report.terminal import plain
from harness.text import counted

NAMED = 3
"""States of a kind that are named where no draw reached them; the JSON has all."""
PLURAL = {
    "nearly": "rules nearly broken",
    "path": "paths",
    "group": "group shapes",
    "size": "sizes",
    "interleaving": "interleavings",
}


def show(console: Console, coverage: Coverage, corpus: Corpus | None = None) -> None:
    """How many states of each kind were covered, some that never were, and what became of the corpus."""
    if not coverage.counts:
        return
    parts = (f"{len(coverage.covered(kind))} {PLURAL[kind]}" for kind in KINDS)
    _print(console, f"covered: {', '.join(parts)}")
    never = {kind: coverage.never(kind) for kind in KINDS}
    if any(never.values()):
        _print(console, f"never: {'; '.join(_never(kind, names) for kind, names in never.items() if names)}")
    if corpus is not None:
        skipped = f", {corpus.skipped} left out that this run does not draw" if corpus.skipped else ""
        _print(
            console,
            f"corpus {corpus.folder}: {counted(len(corpus.scenarios), 'scenario')} from before{skipped}, "
            f"{corpus.added} added; {counted(coverage.new, 'new state')}",
        )
        for line in corpus.broken:
            _print(console, f"  left out: {line}")


def _never(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{PLURAL[kind]} ({', '.join(names[:NAMED])}{more})"


def _print(console: Console, line: str) -> None:
    console.print(plain(line), highlight=False, soft_wrap=True)
