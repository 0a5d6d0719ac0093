"""What is drawn: scenarios counted before any of them runs."""
