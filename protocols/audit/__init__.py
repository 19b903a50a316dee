"""Whether a keeper holds what it committed to: `/swarm/audit/1`.

**Who talks.** After the answers of an audit have closed on the ledger, each of a keeper's auditors asks it.
A stream carries one request and its answer; frames are `protocols.framing`, bodies `storage.canonical`.

**Messages.**

    auditor -> keeper   [1, audit]                  the drawn leaves
    keeper -> auditor   [count], then `count` frames [leaf (4 KiB), label (72), [8 hashes], [hashes to the root]]
    auditor -> keeper   [2, audit, slot]            a whole slot
    keeper -> auditor   [sealed bytes (1 MiB), label (72), [hashes to the root]]
    auditor -> keeper   [3, audit, deal (32), piece]   the challenged chunk of a duty
    keeper -> auditor   [count], then `count` frames [block], from the root to the chunk
    keeper -> auditor   []                          nothing to show, in place of any answer

**Draws.** `draw`: the leaves from the first seed, each from the one before it; whole slots and held chunks from the
second seed. All auditors of a keeper ask for the same.

**Checks.** `verify`: every leaf under the committed root where it was drawn, all of them under the root that the keeper
answered; a whole slot hashes to its label, and unseals to the chunk that the label names or to zeros; a held chunk
hashes to its CID, as every block on the way to it does.

**Limits.** 4,096 leaves, 33 hashes to a root, 96 blocks of 2 MiB on a way; a keeper serves 16 streams, 2 a peer, and
256 requests a peer and audit, and `ASKS_PER_PIECE` more for each piece; `REQUEST_S`, `ANSWER_S`, `FRAME_S` and `ASK_S`
bound every wait. An auditor takes in 32 answers at once, one of a keeper. A keeper that has not begun to answer holds
none of these places, and one that is slow gives its place up where another waits.

**Refused.** A peer that is not an auditor of this keeper in this audit is told `[]`.
A malformed request resets the stream. A malformed answer counts as a wrong one.

**Invariant.** An auditor takes nothing from the keeper that the ledger or a hash does not bear out. A keeper that is
silent is asked again until the report is due, and is named unless its answer waited for a place of the auditor; one that
answers wrongly is named at once.

Source: ours; the docs give the reasons in `docs/protocols/capacity.md`.
"""
