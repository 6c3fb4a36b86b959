"""From a file to a plain graph, with a log of all changes."""
