"""Print a lock file: align's requirements with one extra, all the way down.

What the running environment holds, or what pip would install, for an extra that this machine cannot hold:

    .venv/bin/python setup/lock.py cpu > setup/cpu.lock
    pip install --dry-run --ignore-installed --report report.json -e '.[gpu,dev]'
    .venv/bin/python setup/lock.py gpu report.json > setup/gpu.lock

Local version labels (`+cpu`) are dropped: which build of torch fits is the set-up's decision, its version is
the lock's.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# Ourselves, and what vLLM names for sound and video: unused here, and broken where it does not fit torch.
LEFT_OUT = ("align-vlm", "torchaudio", "torchcodec")


def closure(
    name: str, extras: frozenset[str], pins: dict[str, str], seen: set[tuple[str, frozenset[str]]]
) -> None:
    """Add `name` and what it requires here to `pins`; requirements that are not installed are left out."""
    key = (canonicalize_name(name), extras)
    if key in seen:
        return
    seen.add(key)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return
    pins[key[0]] = Version(found.version).public
    for line in found.requires or []:
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            closure(need.name, frozenset(need.extras), pins, seen)


def reported(path: Path) -> dict[str, str]:
    """Pins from a report of `pip install --dry-run --report`."""
    entries = [entry["metadata"] for entry in json.loads(path.read_text())["install"]]
    return {canonicalize_name(entry["name"]): Version(entry["version"]).public for entry in entries}


def main() -> int:
    """Write the pins to standard output, sorted by name."""
    extra = sys.argv[1]
    pins: dict[str, str] = {}
    if len(sys.argv) > 2:
        pins = reported(Path(sys.argv[2]))
    else:
        closure("align-vlm", frozenset({extra, "dev"}), pins, set())
    print(f"# Every package for the {extra} extra on Linux x86-64 with Python 3.11. Made by setup/lock.py.")
    print("\n".join(f"{name}=={pins[name]}" for name in sorted(pins) if name not in LEFT_OUT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
