"""Hostile plug-ins: pools and collectives that do what `deeds` lists, modules that fail at import, and odd names."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from random import Random

from tests.hostile import runs
from tests.hostile.case import Case, Outcome
from tests.hostile.deeds import DEEDS

DEMANDED = (
    f"status 0, 1 or 2 with one sentence or a finding; each in {runs.BOUND:.0f} s; nothing left after {runs.GONE:.0f} s"
)
NUMBER = 103
"""Of 167, all of which `--share 2` runs; other seeds choose others."""
RAISING = (1, 2)
"""The status of a plug-in that raises: a finding, or a usage error as before `raised` was a rule."""
SAYS_CTRL_C = 130
"""The status of a module that raises `KeyboardInterrupt` when it is imported: it is taken at its word."""
WHOLE = (
    *(
        "ReturnsNothing",
        "ReturnsANumber",
        "YieldsTwice",
        "YieldsNever",
        "SwallowsErrors",
        "ClosesTwice",
        "ClosesNothing",
    ),
    *("AgreesOnText", "AgreesOnLess", "AgreesOnMuch", "AgreesWithNobody", "ExchangesWide", "WritesOverTheHeap"),
    *("TakesAnything", "NeedsNothing", "NUMBER", "NOTHING", "WORD"),
)
"""Pools that are hostile as a whole, by name in `deeds`."""
KERNELS = ("WritesToPads", "WritesEverywhere", "TakesAnything")
SOUND = b"from harness.system.pools.per_group import PerGroup as Pool\n"
MODULES: dict[str, bytes] = {
    "raises": b"raise ValueError('not today')\n",
    "raises odd words": b"raise ValueError('\\x1b[31mred\\x07 [/red] \\u202e\\nnext \\ud800')\n",
    "raises megabytes": b"raise ValueError('much ' * 2_000_000)\n",
    "exits": b"import sys\nsys.exit(0)\n",
    "interrupts": b"raise KeyboardInterrupt\n",
    "raises a base exception": b"class Odd(BaseException): pass\nraise Odd('so')\n",
    "raises GeneratorExit": b"raise GeneratorExit\n",
    "is no Python": b"def half(:\n",
    "holds zeros": b"\0\0\0\n",
    "is no UTF-8": b"'\xff\xfe'\n",
    "recurses": b"def f(): f()\nf()\n",
    "imports itself": b"import hostile\nhostile.Pool\n",
    "raises out of attributes": b"def __getattr__(name): raise RuntimeError(name)\n",
    "prints megabytes": b"print('much ' * 1_000_000)\n" + SOUND,
    "starts a thread": b"import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n" + SOUND,
    "closes descriptors": b"import os\nos.closerange(3, 512)\n" + SOUND,
    "takes stdout away": b"import sys\nsys.stdout = None\n" + SOUND,
    "has a class of odd name": SOUND + b"Pool = type('[red]\\x1b[/]', (Pool,), {'use': lambda self, group: 1 / 0})\n",
    "is another one in a rank": SOUND + b"import os\nPool = 7 if os.path.exists('seen') else Pool\nopen('seen', 'w')\n",
}
"""What the module `hostile` holds, of which `hostile:Pool` is asked for."""
NAMES = (
    *("", ":", "a:", ":b", "a:b:c", "..:x", "a..b:c", "hostile", "hostile:", "os:path", "os:system", "builtins:exit"),
    *(
        "[red]x[/]:y",
        "\x1b[31m:y",
        "a\nb:c",
        "hostile:[/]",
        "x" * 3000 + ":y",
        "\udcff:y",
        "harness:scenarios",
        "json:nope",
    ),
)
"""Names that stand for no plug-in."""
SHORT = ("--substrate=sim", "--world=2", "--draws=2", "--deadline=2", "--shrink-seconds=0.2", "--json=found.json")


def cases(random: Random, number: int) -> list[Case]:
    """Every way in, as many as are asked for."""
    pools = [f"use_{deed}" for deed in DEEDS]
    pools += [f"{random.choice(('init', 'leave', 'close', 'everybody_use'))}_{deed}" for deed in DEEDS]
    kernels = [f"kernel_{deed}" for deed in random.sample([*DEEDS], len(DEEDS) // 3)]
    ways = [
        *(("--pool", f"tests.hostile.deeds:{name}", b"") for name in (*pools, *WHOLE)),
        *(("--collectives", f"tests.hostile.deeds:{name}", b"") for name in (*kernels, *KERNELS)),
        *(("--pool", "hostile:Pool", content) for content in MODULES.values()),
        *(("--pool", name, b"") for name in NAMES),
    ]
    random.shuffle(ways)
    return [Case(_name(way), partial(_act, *way, index % 20 == 0)) for index, way in enumerate(ways[:number])]


def _name(way: tuple[str, str, bytes]) -> str:
    option, name, content = way
    module = next((what for what, held in MODULES.items() if content and held == content), "")
    return f"symm fuzz {option} {shlex.quote(name)[:100]}" + (f", whose module {module}" if module else "")


def _act(option: str, name: str, content: bytes, is_real: bool, folder: Path) -> Outcome:
    place = folder / "run"
    place.mkdir()
    if content:
        (place / "hostile.py").write_bytes(content)
    root = Path(__file__).parents[2]
    if not name.startswith("hostile:"):
        (place / "tests").symlink_to(root / "tests")  # so that the way to repeat it works from here
    words = ("fuzz", f"{option}={name}", *SHORT)
    ended = runs.run(folder, *words, is_real=is_real)
    found = _problems(name, ended, content)
    return Outcome(tuple(f"{shlex.join(['symm', *words])[:300]}: {each}" for each in found), f"status {ended.status}")


def _problems(name: str, ended: runs.Ended, content: bytes) -> list[str]:
    statuses = RAISING if name.endswith("use_raises_an_error") else (0, 1, 2)
    if content == MODULES["interrupts"]:
        statuses = (SAYS_CTRL_C,)
    # what a module prints when it is imported comes first: it runs in the command's own process
    found = runs.problems(ended, statuses, lines=2 if content else 1)
    if ended.status == 1 and not runs.announced(ended):
        found.append("status 1, and no seed file is announced")
    return found
