"""The local HTTP API of a node: what a command on the same machine may ask of it.

The API is served on a Unix socket that only the node's user can open (`<home>/control.sock`).
A quick question answers with one JSON value; a long operation answers with NDJSON events:
any number of `{"event": "progress", "stage", "done", "total"}`, then one `{"event": "result", "value"}`
or `{"event": "error", "error"}`. A client that goes away cancels its operation.
`docs/protocols/control.md` is the specification.
"""
