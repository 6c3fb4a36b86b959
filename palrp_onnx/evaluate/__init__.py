"""How good explanations are, measured over a data set."""
