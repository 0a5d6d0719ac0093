"""The rules, one file a kind: from the facts of a draw to its findings. No I/O."""
