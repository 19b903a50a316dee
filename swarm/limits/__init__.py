"""What a volunteer gives and when: bandwidth, a month's bytes, hours of the week, an idle machine, mains, a cool GPU.

A limit only ever holds back what is begun for others; votes, scores, reveals and answers to audits go on, since silence costs
tokens. The pure modules decide, the thin ones look.

rate      a token bucket (pure)
turns     whose turn it is, of many that wait for one rate (pure)
line      how fast the line is, and the share of it that is taken if nobody says (pure)
month     bytes of a calendar month, counted on disk ahead of what is sent; the cap (pure but for its file)
traffic   the one limiter that every socket to another machine passes
schedule  hours of the week, in local time, across changes of the clock (pure)
idle      for how long nobody has touched this machine: the rule (pure), logind and terminals
power     whether it runs on battery: the rule (pure), and the kernel's files
gpu       power and temperature of an accelerator: the rule (pure), and NVML
wishes    what was asked, and what was changed while the node ran
service   looks every few seconds and says what is held back, and why
"""
