"""Passes that need roles of inputs or operands; each returns the log of what it changed."""
