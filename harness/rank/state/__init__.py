"""What a draw could leave to the next in a rank's process: compared after each draw, and reported where it differs."""
