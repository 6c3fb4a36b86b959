"""The explanation as a graph: how it is written, and the files that are made of it."""
