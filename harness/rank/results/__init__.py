"""What calls have left on a rank, and whether it stays."""
