"""A node of the swarm: composes storage, protocols, ledger and training into one process."""
