"""What the tests share: starting `mpiexec`, watching ranks, being one of them."""
