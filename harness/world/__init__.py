"""The ranks as the parent sees them: started, watched, killed, replaced."""
