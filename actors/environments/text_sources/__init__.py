"""Where the pairs of text tasks come from, one module a source."""
