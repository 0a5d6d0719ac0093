"""A sound pool policy whose module changes the environment and starts a process when it is imported, as engines do."""

import os
import subprocess

from tests.tools.planted import Sound

os.environ["NCCL_PROTO"] = "LL"

helper = subprocess.Popen(["sleep", "600"])


class Pool(Sound):
    """Needs the helper."""

    def close(self) -> None:
        super().close()
        assert helper.poll() is None


class Raises(Sound):
    def close(self) -> None:
        raise ValueError("no more")
