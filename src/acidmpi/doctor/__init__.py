"""`python -m acidmpi.doctor`: what works on this machine, and what to change."""
