"""`align doctor`: what works on this machine, what does not, and what to do.

command.py          the checks

Inside:

probe.py            imports one library in a process of its own
torchvision_ops.py  lets torchvision import beside a torch that its ops were not built for
"""
