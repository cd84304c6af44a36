"""Experiments with Clowder, each a command that regenerates what it made."""
