"""Systems under test by name: `package.module:attribute`.

Invariant: a name that does not load raises one sentence that says why. Where names are looked for does not depend
on what a plug-in does when it is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection
from typing import Any

from harness.errors import PluginError, did_you_mean

_fixed: list[str] = []
"""The directory that `stay` has fixed, if any."""


def stay() -> None:
    """From here on, look for plug-ins in what is the working directory now, wherever one of them changes to."""
    _fixed[:] = [os.getcwd()]


def load_attribute(what: str, name: str, known: Collection[str]) -> Any:
    """The object at `package.module:attribute`; `known` are the built-in names, for the message.

    The working directory, or the one of `stay`, is importable, as with `python -m`. Raises `PluginError` naming what is
    wrong.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise PluginError(
            f"{what} {name!r} is neither {', '.join(known)} nor of the form package.module:attribute"
            + did_you_mean(name, known)
        )
    if module_name.endswith(".py") or os.sep in module_name:
        raise PluginError(
            f"{what} {name!r} names a file, where a module is to be named: {_stem(module_name)}:{attribute}, with the "
            "file in the working directory or in a folder of PYTHONPATH"
        )
    place = _fixed[0] if _fixed else os.getcwd()
    # for a name of the harness's own, nothing in the working directory is looked at: it may be a stranger's
    if not module_name.startswith("harness.") and place not in sys.path:
        sys.path.insert(0, place)
    try:
        module = importlib.import_module(module_name)
        if hasattr(module, attribute):
            return getattr(module, attribute)
    except KeyboardInterrupt:  # which a person may have pressed
        raise
    except BaseException as error:
        looked = f" in {place} or PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise PluginError(f"{what} {name!r} does not import: {_words(error)}{looked}") from error
    meant = did_you_mean(attribute, [each for each in vars(module) if not each.startswith("_")])
    raise PluginError(f"{what} {name!r}: module {module_name!r} has no {attribute!r}{meant}")


def _stem(path: str) -> str:
    """The module that a file would be, if its folder were searched."""
    return os.path.basename(path).removesuffix(".py")


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as another:  # its text is a plug-in's too
        return f"{type(error).__name__}, whose text raises {type(another).__name__}"
