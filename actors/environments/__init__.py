"""Adapters: one file a library. Nothing above this folder knows the libraries."""
