"""The oracle: from the events of a draw to its findings. No I/O."""
