"""What a user replaces: pool policies, buffer sites and collectives, and how their code is loaded and called."""
