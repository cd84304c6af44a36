"""How it is told: YAML only, in groups that Hydra composes (see `distributed/compose.py`)."""
