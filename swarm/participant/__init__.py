"""What this node does in each phase of each round: train, commit, reveal, score, merge, attest.

`core` decides from the ledger's state and from what the node remembers; `memory` is that memory on
disk, saved before anything is sent, so that a killed node opens the commitments it made;
`service` carries the decisions out. A phase that moves on cancels work that came too late for it.
"""
