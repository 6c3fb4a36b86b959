"""Passes that need only the graph, one a file. Each returns the log of what it changed."""
