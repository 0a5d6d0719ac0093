"""What a night keeps: its shards, and the folders that they leave and that are joined."""
