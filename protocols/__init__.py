"""What peers say to each other.

One folder a protocol, none imports another.
Each has the same rooms: `messages` (frozen dataclasses and their bytes), `core` (the rules, no I/O),
`service` (all I/O, no rules) and `errors`; its docstring is the specification.
Beside the folders stand what all of them share: `transport` (streams and topics), `framing`, `signing`.
"""
