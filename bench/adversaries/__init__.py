"""What hostile workers can do to a training task, measured: the rules of `swarm.training` and `swarm.ledger`, driven."""
