"""What a run leaves behind: metrics by rank, a heartbeat, a summary."""
