"""A network in virtual time: the shipped consensus, ledger and participant, and a world drawn from a seed.

    result = Simulation(scenario.load("calm"), seed=1).run()

No socket, thread, clock or model: a heap of events in milliseconds. What is simulated is the world: links, crashes,
disks that tear, hardware, what an update is worth. What is not is the code under test: `Replica`, `LedgerApplication`,
`participant.core`, `keeper.core` and the draws and checks of `protocols.audit` are those of a node. All numbers are
integers from one seed, so a seed has one trace on every machine.

The rooms: `scenario` (what a run is made of), `simulation` (the run), `node`, `network`, `liars`, `trainers` and `accounts`
(who is in it), `depot`, `lenders`, `examiners`, `sealed`, `pieces` and `copies` (who lends, audits and keeps), `plain` and
`memory_store` (ledgers that need no disk), `measures`, `report`, `storage_report` and `plot` (what came of it).
"""
