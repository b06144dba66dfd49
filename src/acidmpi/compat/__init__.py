"""Foreign APIs: `acidmpi.compat.acpsgd` and `acidmpi.compat.horovod`."""
