"""Consensus: Simplex among bonded validators. `/swarm/consensus/1.0.0`; bytes and limits in `docs/protocols/consensus.md`.

Who talks: the validators of an epoch, each over a stream that it opens to every other and keeps open. A set is fixed for
an epoch; W is its weight and Q = floor(2W/3) + 1. Fewer than W/3 lie; messages arrive within D once the network is calm.

    enter(v)                  leader deadline 2D, advance deadline 3D, both after the wait for the block interval
    leader(v)                 proposes a child of the newest certified block, all views between nullified, and shows both
    first good proposal of v  notarize, if v is the present view and the block executes; a bad one: nullify
    a deadline                nullify, unless a finalize was sent
    Q notarize                notarization: enter(v + 1); finalize, unless a nullify was sent, once the block is executed
    Q nullify                 nullification: enter(v + 1)
    Q finalize                finalization: the block and its ancestors are committed
    D/2 after a certificate   it, to those who do not show that they are past its view; a nullification, at once to all
    views unknown, long past  each D, of one validator after another: the nullifications that no proposal shows any more
    every 4D in one view      own votes, the certificate that led here and the newest finalization again

What differs from the paper. A proposal carries its leader's notarize, so that it proves who made it whoever passes it on. The
last block of an epoch is proposed again, unchanged, until it is final; then the next epoch begins at view 1. After two views
in a row that are not final D grows, up to eightfold, until one is. Timestamps only rise, and a block from more than
`max_ahead_ms` in the future waits for its vote. Only what comes from the leader itself is judged as its proposal.

Durable before sent: own votes, own blocks, certificates. After a crash a node goes on from its log and contradicts nothing
that it sent. A key votes in no epoch in which it may have voted without this log: `journal` has the rule.

Whoever sees a notarize for another block than the leader showed it, or leaves a view in which no block was notarized, passes the
leader's notarize on, once: the halves of a double proposal meet, and are evidence.

Refused: votes of no validator, forged signatures, certificates below Q, proposals by another than the leader: the stream they
came on is reset. Votes beyond 16 views ahead or 64 behind are not kept.

Invariants: two nodes never commit different blocks at a height; no honest node can be accused; who breaks the first has
more than W/3 of evidence against it. Above W/3 silent, nothing becomes final until they return.

The rooms: `blocks`, `votes`, `messages` (bytes), `core` (one epoch) with `building`, `book`, `views`, `tree`, `deadlines`,
`asking` and `forwarding`, `replica` (epoch after epoch), `evidence`, `journal` (entries of the log), `events`; `application` is the door to the ledger, `finalizer` the one way through it,
`service` the shell.

Source: Chan and Pass, "Simplex Consensus: A Simple and Fast Consensus Protocol" (2023).
"""
