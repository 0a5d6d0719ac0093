"""What a user replaces: pool policies, buffer sites and collectives, and how their code is loaded and called.

Of the harness a pool policy imports `system.context` alone, and a collective `system.collectives`.
"""
