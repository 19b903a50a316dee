"""The ledger: a deterministic state machine of integers and bytes; no clock, no socket, no randomness.

`execute.execute_block(view, block, transactions)` gives the changes of a block; everything else reads or carries.
What the rules are, and why, is in `docs/protocols/ledger.md` and `docs/design/chain.md`.
"""
