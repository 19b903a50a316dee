"""Training by a swarm beside hivemind and beside one machine that has all of the data."""
