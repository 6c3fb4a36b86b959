"""Roles of all values of a plain graph. Analysis returns facts and never changes the graph."""
