"""The command line: options and requests in, exit status out. Decides nothing."""
