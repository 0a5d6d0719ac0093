"""Smaller cases of a failing scenario: the candidates for one, and the search among them."""
