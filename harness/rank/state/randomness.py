"""Random numbers that a plug-in may draw: a function of the scenario and the rank, whatever ran before.

They are set and not compared: to draw one is no mistake, and would cost the ranks after every draw.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def begin(key: int, device: torch.device) -> None:
    """Begin a draw: the generators of Python, NumPy and torch are where `key` puts them. Local."""
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        torch.cuda.manual_seed(key)
