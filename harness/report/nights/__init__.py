"""What nights say: what is new, what they covered, and what their shards come to."""
