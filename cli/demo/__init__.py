"""A whole network on one machine, of real processes: what `swarm demo` runs.

Four validators with a genesis of their own train a model on real data; then a fifth node, told one address
and nothing else, fetches the result and uses it.
"""
