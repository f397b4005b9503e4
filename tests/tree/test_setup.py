"""The set-up: lock file, Makefile, failures, and the repair of torchvision's import beside a CPU torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from align.doctor import torchvision_ops
from tests.repository import REPO

MAKE_INPUTS = (
    "Makefile",
    "pyproject.toml",
    "setup/install.py",
    "setup/cpu.lock",
    "align/doctor/torchvision_ops.py",
)

# Does at import what torchvision does: registers a shape function for an op that `_C.so` should have defined.
FAKE_TORCHVISION = """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold): return dets
"""


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", REPO / "setup" / "install.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requirements(extra: str) -> list[Requirement]:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [Requirement(line) for line in project["dependencies"] + optional[extra] + optional["dev"]]


def python(code: str, *, path: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    merged = {**os.environ, **env} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run([sys.executable, "-c", code], env=merged, capture_output=True, text=True)


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_lock_covers_and_satisfies_what_pyproject_asks_for(installer: ModuleType, extra: str) -> None:
    pins = installer.read_lock(REPO / "setup" / f"{extra}.lock")
    for need in requirements(extra):
        pin = pins.get(canonicalize_name(need.name))
        assert pin is not None, f"{need.name} is not locked"
        assert need.specifier.contains(pin), f"{need} does not admit the lock's {pin}"


def test_cpu_environment_is_the_locked_one(installer: ModuleType) -> None:
    """The tests speak for the versions that the lock names."""
    if not (REPO / ".venv" / ".installed-cpu").exists():
        pytest.skip("not installed by `make setup` for the cpu extra")
    pins = installer.read_lock(REPO / "setup" / "cpu.lock")
    assert len(pins) > 100
    assert {name: version(name).partition("+")[0] for name in pins} == pins
    assert not set(pins) & set(installer.UNWANTED)


def test_make_sets_up_once_and_again_when_the_lock_changes(tmp_path: Path) -> None:
    for name in MAKE_INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    stamp = tmp_path / ".venv" / ".installed-cpu"
    stamp.parent.mkdir()

    def ready() -> bool:
        return subprocess.run(["make", "-q", "setup"], cwd=tmp_path, capture_output=True).returncode == 0

    assert not ready()
    stamp.touch()
    assert ready()
    later = time.time() + 100
    os.utime(tmp_path / "setup" / "cpu.lock", (later, later))
    assert not ready()


def test_make_without_a_fitting_python_says_so(tmp_path: Path) -> None:
    for name in MAKE_INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    command = ["make", "setup", "PYTHON=no-such-python", "EXTRA=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "no Python 3.11 or 3.12" in done.stderr and "no-such-python" in done.stderr
    assert not (tmp_path / ".venv" / ".installed-cpu").exists()


def test_failed_step_shows_the_end_of_the_log_and_what_to_do(tmp_path: Path) -> None:
    """An environment without pip makes the first pip step fail, as a refused download would."""
    for name in MAKE_INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    command = ["make", "setup", f"PYTHON={sys.executable}", "EXTRA=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "No module named pip" in done.stderr
    assert "set-up failed: step" in done.stderr and "run `make setup` again" in done.stderr
    assert not (tmp_path / ".venv" / ".installed-cpu").exists()


def test_full_disk_is_refused_before_downloading(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=2**30)
    monkeypatch.setattr(installer.shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(installer, "VENV", tmp_path / ".venv")
    with pytest.raises(installer.SetupError, match=r"1\.0 GiB free .* 6 GiB needed"):
        installer.check_machine("cpu")


def test_torchvision_imports_here_and_python_starts_without_torch() -> None:
    done = python(
        "import sys; assert 'torch' not in sys.modules; import torchvision; print(torchvision.__version__)"
    )
    assert done.returncode == 0, done.stderr


def fake_torchvision(folder: Path, library: bytes) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(FAKE_TORCHVISION)
    (package / "_C.so").write_bytes(library)
    return folder


def test_repair_defines_the_ops_when_the_compiled_ones_do_not_load(tmp_path: Path) -> None:
    root = fake_torchvision(tmp_path, b"not a library")
    unaided = python("import torchvision", path=root, **{torchvision_ops.DISABLE: "0"})
    assert "operator torchvision::nms does not exist" in unaided.stderr
    script = (
        "import sys, importlib.util\n"
        "from align.doctor import torchvision_ops as ops\n"
        "ops.activate(); ops.activate()\n"
        "assert sum(finder is ops._Finder for finder in sys.meta_path) == 1\n"
        "assert importlib.util.find_spec('torchvision') and 'torch' not in sys.modules\n"
        "import torchvision, torch\n"
        "print(torch.ops.torchvision.nms.default._schema)"
    )
    repaired = python(script, path=root)
    assert repaired.returncode == 0, repaired.stderr
    assert "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" in repaired.stdout


def test_repair_leaves_a_loading_library_alone(tmp_path: Path) -> None:
    """With a library that loads (any will do), nothing is defined: its own ops must not be shadowed."""
    dynload = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    if not dynload.is_dir():
        dynload = Path(sys.base_prefix) / "lib" / f"python{sysconfig.get_python_version()}" / "lib-dynload"
    # Debian builds `_struct` into the interpreter
    found = (path for name in ("_struct", "_json", "") for path in dynload.glob(f"{name}*.so"))
    library = next(found).read_bytes()
    root = fake_torchvision(tmp_path, library)
    script = (
        "from align.doctor import torchvision_ops as ops; from pathlib import Path\n"
        f"assert ops.define_missing_ops(Path({str(root / 'torchvision')!r})) is False\n"
        "import torch; assert not hasattr(torch.ops.torchvision, 'nms')"
    )
    done = python(script)
    assert done.returncode == 0, done.stderr


def test_repair_installs_twice_and_leaves_nothing_behind(tmp_path: Path) -> None:
    torchvision_ops.install(tmp_path)
    torchvision_ops.install(tmp_path)
    name = torchvision_ops.MODULE
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.pth", f"{name}.py"]
    assert (tmp_path / f"{name}.py").read_bytes() == Path(torchvision_ops.__file__).read_bytes()
    torchvision_ops.remove(tmp_path)
    torchvision_ops.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_holds_all_that_the_code_reads(tmp_path: Path) -> None:
    """Every file of the packages that is no Python, and every recipe: `align init` writes from them."""
    tree, wheels = tmp_path / "tree", tmp_path / "wheels"
    for name in ("align", "data_tools", "evals", "recipes"):
        shutil.copytree(REPO / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, tree / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(wheels), str(tree)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [
        path for name in ("align", "data_tools", "evals", "recipes") for path in (REPO / name).rglob("*")
    ]
    read = {
        str(path.relative_to(REPO)) for path in files if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(read) > 400 and read - held == set()
