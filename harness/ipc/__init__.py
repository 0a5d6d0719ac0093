"""Where the parent and the ranks meet, and nowhere else: shared memory, journals, meeting points, messages."""
