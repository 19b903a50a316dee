"""What a person does with the node's store, and what the node does with it by itself.

    operations   pin, unpin, list, collect, verify: what `store/…` of the control API asks
    retention    which updates and checkpoints the node keeps, and until when; pure
    collector    gives room back: in the background, and when a person asks
    repair       finds what is lost below each root, by path, and brings it from peers

A pin is the person's and ends with `swarm unpin` alone; what the node keeps by itself is a hold, and no pin.
"""
