"""A stage that `accelerate launch` started in several processes."""

from __future__ import annotations

import gc
import os
import sys


def wait_for_main() -> None:
    """Under `accelerate launch`: no process goes on before the main one has made the stage's folder,
    and only the main one speaks."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.accelerator.is_available()).wait_for_everyone()
        if os.environ.get("RANK", "0") != "0":
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process


def end_processes() -> None:
    """Under `accelerate launch`: closes the process group that the trainer opened; call it where nothing
    of the training is in scope any more.

    An interpreter that exits with the group open tears gloo's threads down in any order, and now and then
    aborts after all its work is done (`terminate called without an active exception`).
    """
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # a trainer is full of cycles, and its DDP wrapper holds the group and so its threads
        distributed.destroy_process_group()
