"""What people and programs read: terminal output and JSON."""
