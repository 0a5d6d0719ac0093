"""Flows: the communication around one layer of an engine, line by line, compiled to programs."""
