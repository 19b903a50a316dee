"""The Hugging Face Hub's read API, of what this network's ledger names and this node can reach.

    GET, HEAD /swarm/NAME/resolve/REVISION/PATH           a file, in ranges too; datasets below /datasets/swarm/NAME
    GET       /api/models/swarm/NAME[/revision/REVISION]  what a version is and which files it has
    GET       /api/models/swarm/NAME/tree/REVISION[/PATH] the files, each with its size and CID
    POST      /api/models/swarm/NAME/paths-info/REVISION  some of them
    GET       /api/models/swarm/NAME/refs                 the branch `main` and a tag for each version

It stands on the gateway's port and is refused to whom the gateway refuses.
NAME is a name of the ledger or a CID; REVISION is `main`, `v3`, `@3`, or the 40 hex digits by which Hub clients know a
commit. Such an alias is a hash of what it stands for, so that every node gives and understands the same one
(`revisions`).
A folder without a card gets one that is made from the ledger's record (`cards`); no other byte is ours.
Invariant: a file's ETag is its CID, and every byte of it was checked against that.
"""
