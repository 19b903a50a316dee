"""The page: what a node tells its person in a browser, on a port of 127.0.0.1.

Static files stand in front of a small JSON API, and a stream of server-sent events keeps them new.
Nobody is told anything without a session, which a link that works once begins; nothing here moves a token.
`docs/protocols/page.md` is the specification.
"""
