"""`align doctor`: broken libraries become lines with a remedy, and the exit code says what works."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from align.doctor import command as doctor
from align.doctor.command import Check, probe, render


def test_probe_survives_libraries_that_raise_exit_and_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib_raises.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    (tmp_path / "lib_exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "lib_dies.py").write_text("import os; os._exit(9)")
    (tmp_path / "lib_works.py").write_text("print('chatty at import'); __version__ = '1.5'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    facts = probe(["lib_raises", "lib_exits", "lib_dies", "lib_works"], timeout=60)
    assert facts["lib_raises"]["error"] == "OSError: libcudart.so.13: cannot open"
    assert facts["lib_exits"]["error"].startswith("SystemExit")
    assert "code 9" in facts["lib_dies"]["error"]
    assert facts["lib_works"]["version"] == "1.5"


def test_probe_gives_up_on_a_library_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib_hangs.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "more than 1 s" in probe(["lib_hangs"], timeout=1)["lib_hangs"]["error"]


def test_doctor_tells_that_vllm_is_missing() -> None:
    facts = probe(["a_library_that_nobody_wrote"], timeout=60)["a_library_that_nobody_wrote"]
    (check,) = doctor._vllm({"vllm": facts})
    assert (check.status, check.fix) == ("fail", "make setup")
    assert "No module named" in check.found


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("RuntimeError: operator torchvision::nms does not exist", "align.doctor.torchvision_ops"),
        ("OSError: libtorchaudio.so: undefined symbol", "uninstall torchaudio"),
    ],
)
def test_known_traps_have_remedies(error: str, remedy: str) -> None:
    facts = {name: {"version": "1", "compiled_ops": True} for name in doctor._TRAINING}
    facts["transformers"] = {"error": error}
    failed = [check for check in doctor._libraries(facts) if check.status == "fail"]
    assert [check.name for check in failed] == ["transformers"]
    assert remedy in failed[0].fix


def test_lock_check_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "setup").mkdir()
    lines = f"# pins\nnumpy==0.0.1\npydantic=={version('pydantic')}\n"
    for extra in ("cpu", "gpu"):
        (tmp_path / "setup" / f"{extra}.lock").write_text(lines)
    monkeypatch.setattr(doctor, "REPO", tmp_path)
    check = doctor._lock()
    assert check.status == "warn"
    assert f"numpy {version('numpy')} (lock 0.0.1)" in check.found and "pydantic" not in check.found


def test_base_without_weights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REPO", tmp_path)
    assert doctor._base().status == "warn"
    base = tmp_path / "assets" / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert doctor._base().found == "assets/base has no weights"
    (base / "model.safetensors").write_bytes(bytes(200_000))
    assert doctor._base().status == "ok"


def test_table_shows_remedies_and_what_fails() -> None:
    text = render(
        [Check("torch", "torch", "ok", "2.13"), Check("torch", "vllm", "fail", "gone", "make setup")]
    )
    assert "  ok    torch  2.13" in text and "-> make setup" in text
    assert text.endswith("Does not work yet: vllm. The arrows say what to do.")
    assert "\033" not in text and "\033[31m" in render([Check("a", "b", "fail", "c")], colour=True)


@pytest.mark.slow
def test_doctor_finds_this_environment_fit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "align.cli", "doctor", "--json"], capture_output=True, text=True, timeout=550
    )
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert {"python", "torch", "torchvision", "trl", "vllm", "lock", "disk", "model hub"} <= set(checks)
    assert {check["status"] for check in checks.values()} <= {"ok", "warn", "fail"}
    failed = [check for check in checks.values() if check["status"] == "fail"]
    assert (failed, report["works"], done.returncode) == ([], True, 0)
