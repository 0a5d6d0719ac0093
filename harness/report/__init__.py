"""What a person or a program reads: terminal text and JSON of the same facts."""
