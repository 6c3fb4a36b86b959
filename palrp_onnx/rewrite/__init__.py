"""Changes of the graph that follow from the roles of its inputs and values."""
