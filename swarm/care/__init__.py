"""Care for one node: what is wrong with it and how to mend it, its measures, and what a person holds back for a while.

check      one line of the doctor: good, or what is wrong and the command that mends it
machine    reads what the doctor asks of this machine: disk, files, ports, devices, memory
checks     judges that, and what a running node tells of itself (pure)
doctor     both together, with and without a running node
controls   what is paused and until when, durable; whether the node is to finish
finishing  ends the node once what it owes to the running rounds is done
clock      how far this machine's clock is from those of other leaders (pure)
report     what a running node tells the doctor
metrics    its measures, and the text that Prometheus reads
probes     `/livez`, `/readyz` and `/metrics`, on the control socket and on a port of 127.0.0.1
redaction  takes keys, names and addresses out of a text (pure)
bug_report what helps to find a fault, redacted
unit       the systemd unit of a node
notify     tells systemd that the node is ready
operations what `care/…` of the control API asks
routes     its routes
"""
