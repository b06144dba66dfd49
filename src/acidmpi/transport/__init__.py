"""How the bytes of an exchange move: one peer, two directions, never blocking."""
