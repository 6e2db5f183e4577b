"""Generators of problems with verified chains of thought, one file a family."""
