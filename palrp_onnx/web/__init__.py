"""Explanations in a browser: a compiled explainer as a page of static files."""
