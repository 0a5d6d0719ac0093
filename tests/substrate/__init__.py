"""The simulated substrate, part by part and, where several ranks are needed, end to end."""
