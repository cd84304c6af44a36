"""Experts that make demonstrations: one file an expert."""
