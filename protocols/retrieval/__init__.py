"""The retrieval check: can a peer get this content, shown by one drawn chunk of it.

Protocol `/swarm/retrieval/1.0.0`, members of the same network only. A frame is u32 big endian (the length of what follows),
u8 kind, body. The one that asks opens a stream for each question.

    1 HELD     asker     root CID (36), seed (32)    show the way to the drawn chunk, of what you hold
    2 FETCH    asker     root CID (36), seed (32)    the same, and fetch what you lack, from whom the DHT names
    3 BLOCK    answerer  0 to 2 MiB                  the next block of the way; one more at least follows, or the stream ends
    4 SOURCES  answerer  u16 big endian              FETCH only, first: how many providers it found beside the asker's word
    5 FAILED   answerer  u8 reason                   last: the way ends here

The way is that of `storage.sampling`: the seed, drawn by the asker when it asks, leaves no choice of another chunk.
Each block is named by the one before it, so the asker needs nothing but the root CID to check it.
FETCH shows that a stranger who knows nothing but the CID finds a provider record and gets bytes: the answerer takes its
providers from the DHT and from nowhere else. It does not show that the whole of it is there: several draws make that likely.

Limits: one question a stream; 2 streams a peer and 16 in all; of FETCH 2 at a time, 12 a minute from one peer, and 8 MiB.
Refused, with a reset of the stream: longer frames, unknown kinds, CIDs that are not CIDv1 with sha2-256.

The invariant: no block counts whose hash was not checked against the name that the way gives it.
Reasons: 1 not held, 2 nobody announces it, 3 it cannot be fetched, 4 no room, 5 too busy, 6 too large, 7 not well formed.
Source: ours; what is asked follows IPFS's retrieval checker.
"""
