"""Everything known about a dictionary's features, one compressed page a feature."""
