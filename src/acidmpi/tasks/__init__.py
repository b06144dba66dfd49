"""What `python -m acidmpi.train` trains: data sets, models, losses and the recipe."""
