"""The command line of a night: which part of it a command draws, and how the parts are joined."""
