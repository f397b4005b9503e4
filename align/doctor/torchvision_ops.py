"""Lets torchvision import beside a torch that its compiled ops were not built for.

PyPI's torchvision is a CUDA build. Beside a CPU torch its `_C` library cannot load, so the ops `nms` and
`qnms` are never defined, and `import torchvision` dies while it registers their shape functions. Image
processors and vLLM need only torchvision's Python parts. Defining the two schemas before torchvision's first
import is enough; calling `torchvision.ops.nms` still raises torchvision's own error.

`python -m align.doctor.torchvision_ops` decides for the running environment: where torchvision works unaided
it removes the repair, elsewhere it installs it. Installed, it is a copy of this file in site-packages and a
`.pth` line that puts a finder on `sys.meta_path` in every process of the environment (vLLM starts several),
without importing torch: that happens when torchvision is first imported, which imports torch anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

MODULE = "align_torchvision_ops"
DISABLE = "ALIGN_TORCHVISION_OPS"
_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_libraries: list[object] = []  # torch drops a definition when its Library object is collected


class _Finder:
    """A meta-path finder that answers for the name `torchvision` only."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """torchvision's ordinary spec, with a loader that defines missing ops first."""
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        define_missing_ops(Path(self.path).parent)
        super().exec_module(module)


def define_missing_ops(package: Path) -> bool:
    """Define the op schemas that torchvision registers functions for, if its compiled ops do not load.

    Args:
        package: torchvision's folder, which holds the compiled library `_C*.so`.

    Returns:
        Whether schemas were defined.
    """
    import torch

    for library in sorted([*package.glob("_C*.so"), *package.glob("_C*.pyd")]):
        try:
            torch.ops.load_library(str(library))
        except (ImportError, OSError):
            continue
        return False
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        fragment.define(schema)
    _libraries.append(fragment)
    return True


def activate() -> None:
    """Put the finder in front of `sys.meta_path`, once; does nothing where the environment says `0`."""
    if os.environ.get(DISABLE) != "0" and not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder)


def is_active() -> bool:
    """Whether this process started with the repair installed."""
    return any(getattr(finder, "__module__", "") == MODULE for finder in sys.meta_path)


def works(*, repaired: bool) -> bool:
    """Whether `import torchvision` succeeds in a fresh process, with or without the repair."""
    env = {**os.environ, DISABLE: "1" if repaired else "0"}
    command = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0


def install(site_packages: Path) -> None:
    """Write the copy and the `.pth` line; replaces what an earlier version left."""
    (site_packages / f"{MODULE}.py").write_bytes(Path(__file__).read_bytes())
    (site_packages / f"{MODULE}.pth").write_text(f"import {MODULE}; {MODULE}.activate()\n")


def remove(site_packages: Path) -> None:
    """Delete what `install` wrote."""
    for suffix in (".py", ".pth"):
        (site_packages / f"{MODULE}{suffix}").unlink(missing_ok=True)


def main() -> int:
    """Install or remove the repair as this environment needs; 1 if torchvision cannot be helped."""
    import sysconfig

    site_packages = Path(sysconfig.get_path("purelib"))
    if works(repaired=False):
        remove(site_packages)
        print("torchvision: works as installed")
        return 0
    install(site_packages)
    if works(repaired=True):
        print("torchvision: its compiled ops do not fit this torch; repaired for import")
        return 0
    remove(site_packages)
    print("torchvision: does not import; `python -c 'import torchvision'` shows why", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
