"""What nights keep: known findings, corpora, shards, and the folders that they leave and that are joined."""
