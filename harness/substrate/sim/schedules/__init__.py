"""Draws by a schedule: the ranks take turns, and what they do to memory that peers reach is written down."""
