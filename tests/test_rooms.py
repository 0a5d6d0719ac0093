"""The rules of the house: who may import whom.

A room is a folder of `harness/`, or a file beside them. Late imports, imports for types alone and modules named in a
string count like any other. A module that one side names for the other to load, as text, is no import: ranks get their
entry points by name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "harness"
GROUND = {"errors", "interrupts", "clock", "text"}
FACES = {"__init__.py", "plugin/__init__.py"}
"""The two that hold names; every other package's holds its docstring alone."""
NOT_ROOMS = {"__init__", "__main__", "kernels", "topologies"}
MOST_MODULES = 14
PLUGINS = [
    *(
        path
        for room in ("pools", "planted")
        for path in (HOUSE / "system" / room).glob("[a-z]*.py")
        if path.stem != "built_in"
    ),
    *(HOUSE.parent / "examples" / name for name in ("pool.py", "collectives.py", "cuda_push.py")),
    *(HOUSE.parent / "examples" / "engines").glob("[a-z]*.py"),
]
"""Pool policies and collectives, ours and a user's."""
MAY_SEE = (
    *("harness.system.context", "harness.system.collectives", "harness.system.released", "harness.system.cuda"),
    *("harness.system.planted.", "harness.kernels."),
)

DATA = GROUND | {"scenario", "trace"}
MAY: dict[str, set[str]] = {
    **{room: set() for room in sorted(GROUND)},
    "scenario": {"errors"},
    "trace": {"errors", "scenario"},
    "machine": {"errors", "clock", "text"},
    "ipc": {"errors", "scenario", "trace"},
    "substrate": {"errors", "scenario", "trace", "machine", "ipc", "kernels"},
    "system": {"errors", "scenario", "trace", "substrate", "kernels"},
    "rank": {"errors", "clock", "scenario", "trace", "machine", "ipc", "substrate", "system"},
    "strategies": {"errors", "scenario"},
    "oracle": {"errors", "text", "scenario", "trace"},
    "world": {*DATA, "machine", "ipc"},
    "campaign": {*DATA, "strategies", "oracle", "world"},
}
MAY["nights"] = MAY["campaign"] | {"campaign"}
MAY["studies"] = MAY["campaign"] | {"campaign", "machine", "nights"}
MAY["report"] = MAY["studies"] | {"studies"}
MAY["cli"] = MAY["plugin"] = MAY["report"] | {"report", "system"}


def files(room: str) -> list[Path]:
    return [*(HOUSE / room).rglob("*.py"), *HOUSE.glob(f"{room}.py")]


def imports(path: Path) -> Iterator[str]:
    """The rooms that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module="harness", names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module)) if module.startswith("harness."):
                yield module.split(".")[1]
            case ast.ImportFrom(level=level) if level:
                yield "a relative import"
            case ast.Import(names=names):
                yield from (f"{name.name}.".split(".")[1] for name in names if name.name.split(".")[0] == "harness")
            case ast.Call(args=args, keywords=keywords) if _loads(node.func):
                named = [each for each in (*args, *(word.value for word in keywords)) if isinstance(each, ast.Constant)]
                yield from (str(each.value).split(".")[1] for each in named if str(each.value).startswith("harness."))
            case ast.ImportFrom(module="importlib" | "pkgutil", names=names) if any(name.asname for name in names):
                yield "a module by a function under another name"


def _loads(function: ast.expr) -> bool:
    """Whether a function imports the module that it is handed by name."""
    return ast.unparse(function).split(".")[-1] in ("import_module", "__import__", "resolve_name")


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    assert files(room)
    wrong = {
        f"{path.relative_to(HOUSE)} imports {name}"
        for path in files(room)
        for name in imports(path)
        if name not in MAY[room] | {room}
    }
    assert not wrong


def test_every_room_has_a_rule() -> None:
    rooms = {path.stem for path in HOUSE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - NOT_ROOMS == MAY.keys()


def test_no_rule_names_a_room_that_is_gone() -> None:
    assert set().union(*MAY.values()) - {"kernels"} <= MAY.keys()


def test_rooms_build_on_each_other_without_a_circle() -> None:
    arrows = {room: {name for path in files(room) for name in imports(path)} - {room, "kernels"} for room in MAY}
    while free := {room for room, names in arrows.items() if not names & arrows.keys()}:
        arrows = {room: names for room, names in arrows.items() if room not in free}
    assert not arrows


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.stem)
def test_a_plug_in_sees_its_context_and_nothing_else(plugin: Path) -> None:
    outside = {name for name in modules_of(plugin) if name.startswith("harness.") and not name.startswith(MAY_SEE)}
    assert not outside


def test_the_files_of_a_room_build_on_each_other_without_a_circle() -> None:
    modules = {module_name(path): set(modules_of(path)) for path in HOUSE.rglob("*.py") if "kernels/" not in str(path)}
    arrows = {name: {each for each in found if each in modules} - {name} for name, found in modules.items()}
    while free := {name for name, found in arrows.items() if not found & arrows.keys()}:
        arrows = {name: found for name, found in arrows.items() if name not in free}
    assert not arrows


def module_name(path: Path) -> str:
    return ".".join(("harness", *path.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__")


def modules_of(path: Path) -> Iterator[str]:
    """The modules that a file imports, or imports a name of. The face of the house imports lazily, so it has none."""
    if path == HOUSE / "__init__.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                module = f"{node.module}.{name.name}"
                is_module = (HOUSE.parent / f"{module.replace('.', '/')}.py").exists()
                yield module if is_module else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("face", sorted(str(path.relative_to(HOUSE)) for path in HOUSE.rglob("__init__.py")))
def test_a_package_face_says_what_lives_there_and_holds_nothing(face: str) -> None:
    tree = ast.parse((HOUSE / face).read_text())
    assert ast.get_docstring(tree)
    assert face in FACES or len(tree.body) == 1


def test_no_folder_holds_more_modules_than_one_can_oversee() -> None:
    crowded = {
        str(folder.relative_to(HOUSE))
        for folder in {path.parent for path in HOUSE.rglob("*.py")}
        if sum(path.name != "__init__.py" for path in folder.glob("*.py")) > MOST_MODULES
    }
    assert not crowded


TORCHLESS = sorted(MAY.keys() - {"substrate", "system", "rank"})
FORBIDDEN = {
    **{room: {"torch", "triton"} for room in TORCHLESS},
    "scenario": {"torch", "triton", "hypothesis"},
    "trace": {"torch", "triton", "hypothesis"},
    "oracle": {"torch", "triton", "hypothesis", "subprocess", "socket", "shutil", "tempfile", "os", "pathlib"},
}
"""The parent's side imports no torch, data no Hypothesis, and the oracle nothing that reads or writes."""


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_keeps_away_from_what_is_not_its_business(room: str) -> None:
    taken = {
        f"{path.relative_to(HOUSE)} imports {name}"
        for path in files(room)
        for name in _outside(path)
        if name in FORBIDDEN[room]
    }
    assert not taken


def _outside(path: Path) -> Iterator[str]:
    """Names of the packages that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
