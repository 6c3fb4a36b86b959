"""What the model is: from a file to an annotated graph."""
