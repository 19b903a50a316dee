"""Sync: how a node that is behind, or does not vote, gets the chain. `/swarm/sync/1.0.0`.

Who talks: any node asks any other; one request a stream, then the answer, then the answerer closes.
Frames are `protocols.framing`, bodies canonical arrays (`storage.canonical`).

    [1]                 genesis    -> [genesis bytes]
    [2]                 tip        -> [height of the last final block]
    [3, height, count]  blocks     -> [block, finalization] for each height from there on, at most `count`, as many as are held
    [4, key]            prove      -> [header, finalization, value or null, proof], or [] when it cannot

A finalization is the block's own, or that of the nearest later block that has its own: a block final as an ancestor
carries its descendant's. The asker collects blocks until it meets one with its own certificate, and only then applies
them: nothing is executed that Q of the epoch's validators did not sign.

Limits: genesis 4 MiB; a key 256 bytes; a proof 64 KiB; 512 blocks a request; 16 streams at once, 4 of one peer;
10 s to begin an answer, 30 s for each frame; an answer that is taken more slowly than 16 KiB a second over a minute ends. What is over a limit resets the stream.

Genesis is asked of strangers (the handler serves peers of any network): its hash is the chain id, which the asker
knows from elsewhere and checks.

Invariant: a peer can withhold and delay, it cannot make the asker's ledger take a block that is not final. A peer that lies
is dropped until the node restarts, and reported.

A node that is far behind does not execute what led to the state: `snapshots` says how it follows one header an epoch
and takes the state of one of them in ranges, each checked against the header's state root before it is stored.
"""
