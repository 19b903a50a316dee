"""Figures, each a module that prints medians and the machine: `python -m bench.storage`; all: `make bench`."""
