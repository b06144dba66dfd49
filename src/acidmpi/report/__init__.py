"""`python -m acidmpi.report`: run folders as one page with pictures and a table."""
