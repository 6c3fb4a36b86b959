"""The small tensor language that rules are written in, and its back ends."""
