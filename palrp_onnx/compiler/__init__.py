"""Explanations as graphs: the compiled graph, explainer files, and repositories for servers."""
