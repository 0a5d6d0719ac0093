"""How long collectives take, by every contender of `symm bench collectives`."""
