"""What a Markdown page says: its sentences, links, and the names of code in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "harness"
FOLDERS = ("harness", "docs", "examples", "kernels", "tests", "topologies")
"""Where a path of a page may begin, besides beside the page and in a room of `harness`."""
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"\n *\n|\n(?= *[-*] )|\n(?= *\d+\. )|\n(?=#)|(?<=\n)(?=#)")
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:[\w.-]+/)+(?:[\w.-]+\.(?:py|md|json))?")
DOTTED = re.compile(r"harness(?:\.\w+)+")


def pages() -> list[Path]:
    """The README and everything in `docs`."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def sentences(text: str) -> Iterator[str]:
    """Prose outside code blocks and tables; code in a line counts as one word."""
    for block in BLOCK.split(FENCE.sub("", text)):
        lines = [line for line in block.splitlines() if not line.lstrip().startswith(("|", "#"))]
        prose = CODE.sub("code", LINK.sub(r"\1", " ".join(lines))).strip().lstrip("-*> ")
        yield from (each for each in re.split(r"(?<=[.!?])[)*\"”]*\s+", prose) if each)


def count(sentence: str) -> int:
    """Words of a sentence."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def links(text: str) -> Iterator[str]:
    """Targets inside the project."""
    for _, target in LINK.findall(FENCE.sub("", text)):
        if "://" not in target:
            yield target


def anchors(text: str) -> set[str]:
    """What a link can point at in a page, as GitHub names headings."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def paths(text: str) -> Iterator[str]:
    """Files and folders that are named as code, and that begin with a folder or a room of the project."""
    rooms = tuple(path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists())
    for code in CODE.findall(FENCE.sub("", text)):
        if PATH.fullmatch(code) and code.split("/")[0] in (*FOLDERS, *rooms):
            yield code


def dotted(text: str) -> set[str]:
    """Modules and their names, such as `harness.system.context`, also in code blocks."""
    return set(DOTTED.findall(text))


def is_there(name: str) -> bool:
    """Whether a dotted name is a package, a module, or a name in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if source.exists():
            return all(re.search(rf"\b{part}\b", source.read_text()) for part in parts[end:])
    return False
