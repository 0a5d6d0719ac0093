"""The states that a judged draw reached, as short names by kind: how near it came to each rule, and what it covered."""
