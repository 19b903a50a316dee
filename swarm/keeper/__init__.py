"""The keeper: what this node lends, proves and keeps for others, and the audits that it makes of others.

`room` divides what a person lends; `core` says what to do next; `service`, `committing`, `answering`, `duties` and
`auditing` do it.
The rules are those of `docs/protocols/capacity.md`.
"""
