"""MPI around the protocols: communicators, threads, nodes, waits with a deadline."""
