"""Trainers that compute what TRL's do, with less work.

Nothing here knows of files: stages read rows and write folders, trainers train. The names below are
imported when they are asked for, since they bring torch along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.trainers.dpo_trainer import SharedPrefixDPOTrainer
    from align.trainers.sft_trainer import SharedImageSFTTrainer
    from align.trainers.sharing import SharingConfig

__all__ = ["SharedImageSFTTrainer", "SharedPrefixDPOTrainer", "SharingConfig"]

_MODULES = {
    "SharedImageSFTTrainer": "align.trainers.sft_trainer",
    "SharedPrefixDPOTrainer": "align.trainers.dpo_trainer",
    "SharingConfig": "align.trainers.sharing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
