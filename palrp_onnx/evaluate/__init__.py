"""Measurements of explanations over a data set."""
