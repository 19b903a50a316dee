"""Bytes at rest: chunks and their names, the segment store, Merkle proofs, ledger state, logs.

Nothing here talks to a peer and nothing here waits on anything but the disk.
Every call is synchronous; callers on an event loop run it in a thread.
"""
