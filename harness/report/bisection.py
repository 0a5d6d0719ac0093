"""A bisection for people and for programs: a line for each version, and between which ones the verdict changes."""

from __future__ import annotations

from typing import Any

from harness.studies.bisect.search import Change, Search, Tried
from harness.text import counted


def line(tried: Tried) -> str:
    """One version's verdict."""
    often = f"in {tried.failed} of {counted(tried.runs, 'run')}"
    match tried.verdict:
        case "fails":
            return f"{tried.version}: fails, {', '.join(tried.rules)} {often}"
        case "other":
            return f"{tried.version}: other, only {', '.join(tried.rules)} {often}"
        case "clean":
            return f"{tried.version}: clean in {counted(tried.runs, 'run')}"
    return f"{tried.version}: skipped, {tried.why}"


def summary(search: Search, package: str) -> list[str]:
    """What all verdicts show together, in lines."""
    if not search.changes:
        return [_unchanged(search, package)]
    lines = [each for change in search.changes for each in _change(change)]
    if len(search.changes) > 1:
        lines.append(
            f"not one change but {len(search.changes)}: versions that were not tried may differ from both sides"
        )
    return lines


def _unchanged(search: Search, package: str) -> str:
    """Why there is no change, in words."""
    first, *others = (tried for _, tried in sorted(search.tried.items()) if tried.has_run)
    if not others:
        return f"no change: {package} {first.version} alone could run, and the seed {_verb(first)} with it"
    last = others[-1]
    is_bad = first.is_bad
    ends = f"{package} {first.version} {'and' if is_bad else 'nor'} {last.version}"
    more = f"; {counted(len(others) - 1, 'version')} tried between them gave the same" if len(others) > 1 else ""
    return f"no change: the seed fails with {'both' if is_bad else 'neither'} {ends}{more}"


def _verb(tried: Tried) -> str:
    return "fails" if tried.is_bad else "does not fail"


def _change(change: Change) -> list[str]:
    """One change, and what makes it less sharp."""
    old, new = ("last good", "first bad") if change.begins else ("last bad", "first good")
    lines = [f"{new} {change.after.version}, {old} {change.before.version}"]
    if change.skipped:
        lines.append(f"  not sharp: {', '.join(change.skipped)} between them could not run")
    good = change.before if change.begins else change.after
    if good.verdict == "other":
        lines.append(f"  {good.version} is not clean: it breaks {', '.join(good.rules)} instead")
    return lines


def data(search: Search) -> dict[str, Any]:
    """The same for a program: versions in order, and the changes."""
    return {
        "versions": [tried for _, tried in sorted(search.tried.items())],
        "changes": [_as_data(change) for change in search.changes],
    }


def _as_data(change: Change) -> dict[str, Any]:
    good, bad = (change.before, change.after) if change.begins else (change.after, change.before)
    names = ("last_good", "first_bad") if change.begins else ("first_good", "last_bad")
    return {
        "kind": "begins" if change.begins else "ceases",
        **dict(zip(names, (good.version, bad.version), strict=True)),
        "skipped": list(change.skipped),
    }
