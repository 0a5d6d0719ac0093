"""A sound pool policy whose module changes the environment when it is imported, as modules of engines do."""

import os

from tests.tools.planted import Sound

os.environ["NCCL_PROTO"] = "LL"

Pool = Sound
