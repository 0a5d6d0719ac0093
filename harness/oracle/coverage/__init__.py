"""What a draw covered: whether it tested anything, and if not, why."""
