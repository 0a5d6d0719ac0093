"""Every pool design that ships, end to end and, where no scenario can lead it, by a function on its ranks."""
