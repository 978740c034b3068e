"""Stores to crops and context stacks. Knows no source format."""
