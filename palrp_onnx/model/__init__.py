"""From a file to a plain graph, with a log of what was changed on the way."""
