"""Benchmarks: `python -m acidmpi.bench NAME`, each beside a limit or a rival."""
