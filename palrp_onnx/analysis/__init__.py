"""What every value of a plain graph is to the explanation: facts, and nothing is edited."""
