"""Print a lock file: what the running environment holds of align's requirements, all the way down.

    .venv/bin/python setup/lock.py cpu > setup/cpu.lock

Walks from align and its extras through every installed requirement that applies here. Local version labels
(`+cpu`) are dropped: which build of torch fits is the set-up's decision, its version is the lock's.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


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


def main() -> int:
    """Write the pins to standard output, sorted by name."""
    extra = sys.argv[1]
    pins: dict[str, str] = {}
    closure("align-vlm", frozenset({extra, "dev"}), pins, set())
    del pins["align-vlm"]
    print(
        f"# Every package of `.venv` for the {extra} extra, Linux x86-64, Python 3.11. Made by setup/lock.py."
    )
    print("\n".join(f"{name}=={version}" for name, version in sorted(pins.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
