"""A collective in CUDA C++ in place of which the simulation runs nothing else."""

from __future__ import annotations

from examples.cuda_push import Pushes


class OnGpusAlone(Pushes):
    fallback = ""
