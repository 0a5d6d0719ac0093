"""Whether CUDA C++ can be compiled here."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest


@cache
def why_no_nvrtc() -> str:
    """Empty where NVRTC compiles."""
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        return "nothing compiles CUDA C++ here: cuda-core is missing"
    from cuda.bindings import nvrtc

    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        return f"nothing compiles CUDA C++ here: {error}".splitlines()[0]
    return ""


needs_nvrtc = pytest.mark.skipif(bool(why_no_nvrtc()), reason=why_no_nvrtc())
