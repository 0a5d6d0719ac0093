"""The fault catalogue, and the proof that the harness finds every entry."""
