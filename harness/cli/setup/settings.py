"""Defaults of options from `[tool.symm]` of a pyproject.toml, and from variables `SYMM_*`.

Invariant: the command line comes first, then the environment, then the file, then what is built in. A name that is no
option ends the command with one sentence, which names it and where it stands. What makes a seed run a stranger's code,
or another system than its own, is never a default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UsageError, did_you_mean

FILE = "pyproject.toml"
PREFIX = "SYMM_"
OTHERS = {
    *("SYMM_HOST_ID", "SYMM_LAUNCH", "SYMM_TOKEN"),  # of worlds over hosts
    *("SYMM_LEASE_DIR", "SYMM_LEASED_BY"),  # of GPUs
    *("SYMM_NIGHT", "SYMM_SHARD", "SYMM_SHARDS"),
}
"""Variables that are no options."""
OTHER_PREFIXES = "SYMM_OBSERVER_", "SYMM_TEST_"
"""How others begin: those of the observer, and of our own tests."""
NEVER = {"help", "version", "allow-plugins", "install-completion", "show-completion"}
"""Options that only a command line gives."""
OF_THE_SEED = {"pool", "collectives", "sites"}
"""What commands on a seed take from it, unless they are asked by name."""
ON_SEEDS = ("replay", "bisect")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class Setting(NamedTuple):
    """A default of an option: of one command, or of each that has it. `source` is where it comes from."""

    command: tuple[str, ...]
    option: str
    value: Any
    source: str


def names_of(command: Any) -> dict[tuple[str, ...], dict[str, Any]]:
    """The parameters of each command that may have a default, by the name of the option."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        found[path] = {key: each for each in node.params if (key := _key(each)) and key not in NEVER}
        for name, below in getattr(node, "commands", {}).items():
            visit(below, (*path, name))

    visit(command, ())
    return found


def _key(parameter: Any) -> str:
    longs = [option for option in parameter.opts if option.startswith("--")]
    return longs[0][2:] if longs else ""


def apply(command: Any, folder: Path, environment: Mapping[str, str]) -> list[Setting]:
    """Set the defaults of a command and those below it. Raises `UsageError` for what is no option."""
    known = names_of(command)
    settings = [*_from_file(folder, known), *_from_environment(environment, known)]
    for path, parameters in known.items():
        of_seed = OF_THE_SEED if path and path[0] in ON_SEEDS else set()
        mine = [each for each in settings if path[: len(each.command)] == each.command and each.option in parameters]
        for setting in mine:
            if setting.option in of_seed and setting.command != path:
                continue
            _set(parameters[setting.option], setting)
    return settings


def _set(parameter: Any, setting: Setting) -> None:
    parameter.default = _value(parameter, setting)
    parameter.required = False
    before = getattr(parameter, "plain_help", parameter.help or "")
    parameter.plain_help, parameter.source = before, setting.source
    parameter.help = f"{before} (From {setting.source}.)"


def _value(parameter: Any, setting: Setting) -> Any:
    """A setting as the parameter takes it. Numbers stay text, which the command reads and checks as on its line."""
    value, where = setting.value, f"{setting.source}: {setting.option} = {setting.value!r}"
    if parameter.is_flag:
        word = str(value).lower()
        if word not in (*TRUE, *FALSE):
            raise UsageError(f"{where} is neither true nor false")
        return word in TRUE
    if parameter.multiple:
        return [str(each) for each in (value if isinstance(value, list) else [value])]
    if isinstance(value, list | dict | bool):
        raise UsageError(f"{where} is no single value")
    return str(value)


def _from_file(folder: Path, known: Mapping[tuple[str, ...], Mapping[str, Any]]) -> list[Setting]:
    """Those of the nearest file that has the table, the general ones first."""
    for each in (folder, *folder.parents):
        path = each / FILE
        if path.is_file():
            table = _table(path)
            if table is not None:
                return sorted(_of_table(table, (), known, str(path)), key=lambda setting: len(setting.command))
    return []


def _table(path: Path) -> dict[str, Any] | None:
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    table = tool.get("symm") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{path}: tool.symm is no table")
    return table


def _of_table(
    table: dict[str, Any], path: tuple[str, ...], known: Mapping[tuple[str, ...], Mapping[str, Any]], file: str
) -> Iterator[Setting]:
    section = ".".join(("tool.symm", *path))
    below = [each[len(path)] for each in known if len(each) == len(path) + 1 and each[: len(path)] == path]
    options = {name for each, parameters in known.items() if each[: len(path)] == path for name in parameters}
    for key, value in table.items():
        name = key.replace("_", "-")
        if isinstance(value, dict) and key in below:
            yield from _of_table(value, (*path, key), known, file)
        elif name in options and not isinstance(value, dict):
            yield Setting(path, name, value, f"{section} in {file}")
        else:
            what = "command" if isinstance(value, dict) else "option"
            meant = did_you_mean(name, below if isinstance(value, dict) else sorted(options))
            alone = "; it can only be given on the command line" if name in NEVER else meant
            raise UsageError(f"{file}: [{section}] has {key!r}, which is no {what}{alone}")


def _from_environment(
    environment: Mapping[str, str], known: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> Sequence[Setting]:
    """Those of variables, for every command that has the option (`SYMM_DRAWS`) or for one (`SYMM_FUZZ_DRAWS`)."""
    places: dict[str, tuple[tuple[str, ...], str]] = {}
    for path, parameters in sorted(known.items(), key=lambda each: -len(each[0])):
        for name in parameters:
            places[_variable(*path, name)] = path, name
    general = {_variable(name): ((), name) for parameters in known.values() for name in parameters}
    places = {**places, **general}
    found = []
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable.startswith(OTHER_PREFIXES) or variable in OTHERS:
            continue
        if variable not in places:
            raise UsageError(f"variable {variable} names no option{did_you_mean(variable, sorted(places))}")
        path, name = places[variable]
        multiple = any(parameters[name].multiple for parameters in known.values() if name in parameters)
        value: Any = text.split(",") if multiple and "," in text else text
        found.append(Setting(path, name, value, variable))
    return sorted(found, key=lambda setting: len(setting.command))


def _variable(*names: str) -> str:
    return PREFIX + "_".join(names).replace("-", "_").upper()
