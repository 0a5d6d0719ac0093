"""Kills, mutated files, random command lines and hostile plug-ins against the harness: `make hostile`.

A tool for maintainers: pytest collects its own small tests alone. Everything is drawn from `--seed` before anything
runs, but for the moment at which a signal meets a command.
"""
