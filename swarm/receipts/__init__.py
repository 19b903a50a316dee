"""Receipts: what became of each contribution of this node, signed by it, with where the ledger says so.

`receipt` is one of them and its check (pure), `book` the bounded file, `service` notes rounds as they end,
`operations` and `routes` are their doors in the control API.
"""
