"""Datasets with a history, as with git: commits, branches, differences, merges, forks.

A version of a dataset is a **commit**: a DAG-CBOR block that links its tree (a UnixFS folder) and its parents, signed by
its author. A **branch** is a name in this node's own folder for a commit; the name on the ledger points to the commit
that was published. A **working folder** is a folder of a person that holds one version and knows, by the file
`.swarm-dataset` in it, of which dataset and branch.

Rooms: `commit` (bytes and signature), `history` (which commit comes from which), `tree` (folders as maps, and back),
`diff` and `tensors` (what changed), `merge` (three trees into one), `reference` (versions as people write them): all pure.
`rows` counts rows in a process of its own. `repository` (branches on the disk), `working` (a person's folder) and
`operations` (what a person asks) do the I/O.
docs/protocols/commits.md has the bytes, the limits and the attacks.
"""
