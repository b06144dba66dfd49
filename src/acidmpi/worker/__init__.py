"""One asynchronous rank: its state, its two loops, and the objects users hold."""
