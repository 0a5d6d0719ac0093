"""What nights keep: the findings that are known, and what a night says of them."""
