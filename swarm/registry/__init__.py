"""Versions of models: which there are, what changed between two, and the way back to an earlier one."""
