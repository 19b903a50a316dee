"""Consensus (placeholder replaced below)."""
