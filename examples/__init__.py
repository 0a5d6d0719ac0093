"""Systems under test written as a user of the harness would write them."""
