"""Changes of the graph that need nothing but the graph: one pass a file."""
