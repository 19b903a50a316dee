"""Bitswap 1.2: chunks by CID, between this node and those of IPFS (Kubo, Helia), in both directions.

Protocols `/ipfs/bitswap/1.2.0`, `1.1.0` and `1.0.0`; the first that a peer speaks is used. Each side opens one stream for all that
it says, wants and answers alike, and reads the streams that the other opened, to their end. Nothing is answered on the stream
on which it was asked. A frame is a uvarint length and one protobuf message:

    Message  { Wantlist wantlist = 1; bytes blocks = 2 (1.0.0 only); Block payload = 3; Presence presences = 4; int32 pending = 5 }
    Wantlist { Entry entries = 1; bool full = 2 }
    Entry    { bytes cid = 1; int32 priority = 2; bool cancel = 3; Type type = 4 (0 block, 1 have); bool send_dont_have = 5 }
    Block    { bytes prefix = 1; bytes data = 2 }      prefix: the CID without its digest
    Presence { bytes cid = 1; Type type = 2 (0 have, 1 dont-have) }

A want stays until it is answered with HAVE or a block, or cancelled; a `full` list replaces all before it.
What is not held is answered DONT_HAVE where that was asked for, else with silence; and with HAVE or the block once it arrives.
CIDs are normalised here (CIDv0 is the CIDv1 of the same node) and answered in the form in which they were asked.

Limits: 4 MiB a frame from a peer that owes chunks, 256 KiB from others; 2 MiB a chunk; 4,096 wants a peer, more get DONT_HAVE or
nothing; 168 bytes a CID; 256 peers. Refused, with a reset of the stream: longer frames, what is no protobuf, more than 8,192
entries. Dropped and noted as misbehaviour: a chunk that this node has not asked of that peer, which is also what wrong
bytes are, since a block carries no name but its own hash.

The invariant: no byte reaches the store whose hash was not computed here and found among the wants.
Of a peer's wants only names and sizes wait; chunks are read when its stream has taken those before.

Rooms: `messages` (bytes), `core` (a peer's wants), `schedule` (which chunk is asked of whom), `walk` (what is known of a DAG),
`lines` (the stream to a peer), `fetching` (one fetch), `service`.
Source: https://specs.ipfs.tech/bitswap-protocol/ and what Kubo 0.22 and Helia 7 do.
"""
