"""What people call from Python: a model that is loaded once, and explains what it is given."""
