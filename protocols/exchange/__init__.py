"""The exchange: chunks by CID, between any two peers, also of different networks.

Protocol `/swarm/exchange/1.0.0`. The peer that wants chunks opens one stream to the peer that has them and keeps it open;
a pair that gives in both directions has two. A frame is u32 big endian (the length of what follows), u8 kind, body.

    1 WANT       requester  1 to 1,024 CIDs     send these chunks
    2 CANCEL     requester  1 to 1,024 CIDs     no longer wanted
    3 QUERY      requester  1 to 1,024 CIDs     which of these are held?
    4 BLOCK      server     CID, 0 to 2 MiB     a chunk that was wanted
    5 DONT_HAVE  server     1 to 1,024 CIDs     wanted, and will not come
    6 HAVE       server     0 to 1,024 CIDs     those of the oldest unanswered QUERY that are held

The rule of the wire: a want is answered exactly once, by BLOCK or by DONT_HAVE, in any order, cancelled or not.
So both sides know at any time what is owed, and an answer that nobody is owed is refused.

Limits: 1,024 wants and 16 queries that are not answered; 2 MiB a chunk; 64 streams served at a time, one a peer (a newer
one replaces the older). Refused, with a reset of the stream: longer frames, unknown kinds, CIDs that are not CIDv1 with
sha2-256, a chunk wanted twice, more wants than allowed, answers to no question.

The invariant: no byte reaches the store whose hash was not checked against the CID that was asked for.
The server reads a chunk from its store only when the stream has taken the one before the last; the requester asks only for what
it has room for, so it can always read. Memory grows with neither the content nor the peers' wishes.

Rooms: `messages` (bytes), `lines` (what is owed on one stream), `walk` (what is known of a DAG), `core` (which chunk is asked
of whom), `sessions` (a stream to a provider), `search` (whom one fetch can ask), `fetching` (one fetch), `notes` (how it
stands, in words), `serving` (one stream's answers), `service`.
Source: ours; the shape follows Bitswap 1.2 (wants, haves, dont-haves) without its sessions by broadcast.
"""
