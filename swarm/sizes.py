"""Sizes and counts as people read them; imports next to nothing, so that the command line starts quickly."""

from __future__ import annotations

from storage.sizes import counted as counted
from storage.sizes import format_size as format_size
