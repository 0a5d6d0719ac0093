"""The rules, one file a kind: each judges a case and yields findings. A new rule goes here."""
