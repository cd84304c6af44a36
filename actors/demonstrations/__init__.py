"""Demonstration sets on disk."""
