"""Ways in which a file of JSON goes wrong: as bytes, as text, and as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

NASTY = (
    "\x1b[31mred",
    "\x07",
    "\u202eleft",
    "[/red]",
    "[bold]",
    "\x00",
    "\ud800",
    "a\nb",
    "x" * 100_000,
    "",
    "日本",
    "\x9b",
)
NUMBERS = ("1e999", "-1e999", "NaN", "Infinity", "-0", "1.5", "-1", "0", str(2**31), str(2**63), str(2**64), "9" * 400)
WRONG: tuple[Any, ...] = (None, True, [], {}, 0, -1, 1.5, 10**18, "x", [[]], [None], {"": 0}, "library", "tp")


def flip(random: Random, data: bytes) -> bytes:
    """One to four bytes with other bits."""
    changed = bytearray(data or b"{")
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def cut(random: Random, data: bytes) -> bytes:
    """A piece is missing."""
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.randint(1, 40) :]


def stutter(random: Random, data: bytes) -> bytes:
    """A piece is there twice."""
    start = random.randrange(len(data) + 1)
    piece = data[start : start + random.randint(1, 200)]
    return data[:start] + piece + data[start:]


def insert(random: Random, data: bytes) -> bytes:
    """A stranger's bytes in the middle."""
    start = random.randrange(len(data) + 1)
    stranger = random.choice((b"\x00", b"\x1b[2J", b"\xff\xfe", b"\xc3", b",", b"}", b"]", b'"', b"\\u0000", b"//x\n"))
    return data[:start] + stranger + data[start:]


def encode(random: Random, data: bytes) -> bytes:
    """Another encoding, or a byte order mark."""
    text = data.decode(errors="replace")
    codec = random.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1"))
    return text.encode(codec, errors="replace")


def surround(random: Random, data: bytes) -> bytes:
    """Nothing, only space, or something beside the object."""
    return random.choice(
        (b"", b" \n", b"[" + data + b"]", data + data, data + b"x", b"\xef\xbb\xbf" + data, b"null", b"7")
    )


def swell(random: Random, data: bytes) -> bytes:
    """Much larger than a file of plain data is."""
    return data + random.choice((b" " * (9 << 20), b"\n" * (1 << 20)))


def repeat_key(random: Random, data: bytes) -> bytes:
    """A key is there twice, with the same value or another."""
    text = data.decode(errors="replace")
    places = [at for at, char in enumerate(text) if char == "{"]
    at = random.choice(places or [0])
    key = random.choice(("schema", "name", "kind", "seed", "steps", "tp", "pool", "degrees", "buffer"))
    return (text[: at + 1] + f'"{key}": {random.choice(("1", "null", "[]"))}, ' + text[at + 1 :]).encode(
        errors="replace"
    )


def number(random: Random, data: bytes) -> bytes:
    """A value becomes a number that few expect."""
    return _literal(random, data, random.choice(NUMBERS))


def nest(random: Random, data: bytes) -> bytes:
    """A value lies deep."""
    depth = random.choice((10, 500, 5_000, 200_000))
    opened, closed = random.choice((("[", "]"), ('{"a":', "}")))
    return _literal(random, data, opened * depth + "1" + closed * depth)


def _literal(random: Random, data: bytes, literal: str) -> bytes:
    """Write a literal in the place of one value."""
    mark = "a mark that no file has"
    text = _data(random, data, lambda holder, key: holder.__setitem__(key, mark)).decode(errors="replace")
    return text.replace(f'"{mark}"', literal, 1).encode(errors="replace")


def wrong_type(random: Random, data: bytes) -> bytes:
    return _data(random, data, lambda holder, key: holder.__setitem__(key, random.choice(WRONG)))


def nasty(random: Random, data: bytes) -> bytes:
    """A value becomes text that a terminal would obey, or that has no end."""
    return _data(random, data, lambda holder, key: holder.__setitem__(key, random.choice(NASTY)))


def remove(random: Random, data: bytes) -> bytes:
    return _data(random, data, lambda holder, key: holder.pop(key))


def unknown(random: Random, data: bytes) -> bytes:
    """A key that there is not, or one renamed."""

    def change(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[random.choice((*NASTY, "surprise", key.upper()))] = holder.pop(key) if random.random() < 0.5 else 1
        else:
            holder.append({"surprise": 1})

    return _data(random, data, change)


def repeat_items(random: Random, data: bytes) -> bytes:
    """A list with an item twice, or a thousand times, or in another order."""

    def change(holder: Any, key: Any) -> None:
        items = holder if isinstance(holder, list) else holder[key]
        if isinstance(items, list) and items:
            random.shuffle(items)
            items *= random.choice((1, 2, 1000))

    return _data(random, data, change)


def shift(random: Random, data: bytes) -> bytes:
    """A number a little, or very, different: often a file that is right."""

    def change(holder: Any, key: Any) -> None:
        if isinstance(holder[key], int):
            holder[key] = random.choice(
                (holder[key] + 1, holder[key] - 1, holder[key] * 2, -holder[key], 1 << 20, 1 << 40)
            )

    return _data(random, data, change)


def _data(random: Random, data: bytes, change: Callable[[Any, Any], object]) -> bytes:
    """Change one place of the data; what is no JSON any more stays as it is."""
    try:
        root = json.loads(data)
        places = [*_places(root)]
    except (ValueError, RecursionError):
        return flip(random, data)
    if not places:
        return flip(random, data)
    change(*random.choice(places))
    return json.dumps(root).encode(errors="surrogatepass")


def _places(value: Any) -> Any:
    """Every place of a value: what holds it, and its key."""
    keys = [*value] if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


MUTATIONS = (
    *(flip, truncate, cut, stutter, insert, encode, surround, repeat_key, number, nest),
    *(wrong_type, wrong_type, nasty, remove, unknown, repeat_items, shift, shift, shift),
)
RARE = (swell,)


def mutate(random: Random, data: bytes) -> tuple[bytes, str]:
    """A damaged file and how it was damaged."""
    chosen = random.choices(MUTATIONS, k=random.choice((1, 1, 1, 2, 3)))
    if random.random() < 0.005:
        chosen = [*RARE]
    for way in chosen:
        data = way(random, data)
    return data, "+".join(way.__name__ for way in chosen)
