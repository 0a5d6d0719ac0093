"""Systems under test with one planted fault each, by which the harness proves itself."""
