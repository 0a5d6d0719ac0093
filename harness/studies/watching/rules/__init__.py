"""Rules that recordings alone can break: they rest on what a draw has no steps or events for."""
