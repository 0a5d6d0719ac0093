"""Seed files kept for ever: every one of them replays in the test suite."""
