"""Can others get it: who holds a root, who can fetch it, and the proof that a peer did.

`checks` asks peers, over `protocols.retrieval`; `routes` are its doors in the control API; `link` is how a root is told.
"""
