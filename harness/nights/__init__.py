"""What nights keep and learn: known findings, a corpus, what was covered, shards, and how what they leave is joined."""
