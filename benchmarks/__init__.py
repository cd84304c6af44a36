"""How fast it is: each figure with the command that makes it, as JSON."""
