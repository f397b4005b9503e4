"""`align doctor`: what works on this machine, or for a checkpoint, what does not, and what to do.

command.py          the machine's checks

Inside:

check.py            one line of the table
checkpoint.py       the checks of a checkpoint
probe.py            imports one library in a process of its own
torchvision_ops.py  lets torchvision import beside a torch that its ops were not built for
"""
