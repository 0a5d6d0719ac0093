"""What a night keeps and learns: findings it knows, a corpus of scenarios, and what its draws have covered."""
