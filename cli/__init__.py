"""The `swarm` command: one file a command, two printers (text and JSON), one table of exit codes."""
