"""Scenarios rewritten in ways that must leave their verdict as it is, one way a module."""
