"""The command `python -m acidmpi.train`."""
