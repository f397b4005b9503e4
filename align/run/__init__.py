"""The run-folder contract: a stage's folder is whole or absent, and says how it came to be.

folder.py       `RunFolder`: partial, manifest, resume, skip
stage.py        `run_stage`: what all stages do around their own work
state.py        what a folder on disk says of a recipe: done, begun, or stale and why
checkpoints.py  training checkpoints that a kill cannot spoil
memory.py       peak memory of this process and its children; what a training cost
processes.py    a stage that `accelerate launch` started several times
"""
