"""Questions about dictionaries, each answered by many runs and one table."""
