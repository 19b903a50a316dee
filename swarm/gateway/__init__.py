"""The gateway: what the swarm holds, over HTTP on this machine, as IPFS's gateways answer.

    GET, HEAD /ipfs/<cid>[/path]
        ?format=raw   or Accept: application/vnd.ipld.raw     one chunk
        ?format=car   or Accept: application/vnd.ipld.car     chunks; dag-scope=block|entity|all, entity-bytes=FROM:TO
        else                                                  the file, in ranges too, or a page that lists the folder

What is not held is fetched while it is answered, in windows of `swarm.ranges.WINDOW_BYTES`.
Only questions to a loopback name are answered, so that no page of the web can read through it by a name of its own;
and none of a page of another site, but that a person follows a link: it could fill the store, or ask what it holds.
What strangers wrote is served in a sandbox without scripts, and never as another type than its name says.
Invariant: every byte that leaves was checked against its CID.
Source: https://specs.ipfs.tech/http-gateways/trustless-gateway/ and path-gateway.
"""
