"""What a person does with the chain: make a network, stake, look a transaction up, check a name by its proof alone."""
