"""The launcher configs: accelerate reads each, and knows every key in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.repository import REPO

FILES = sorted((REPO / "recipes" / "accelerate").glob("*.yaml"))
KIND = {
    "ddp": "MULTI_GPU",
    "fsdp2": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
    "deepspeed_zero3": "DEEPSPEED",
}


def test_every_kind_has_its_file() -> None:
    assert {path.stem for path in FILES} == set(KIND)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_parses_it(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config: Any = load_config_from_file(str(path))
    assert config.distributed_type.value == KIND[path.stem]
    assert config.mixed_precision == "bf16"
    known = set(vars(launch_command_parser().parse_args(["script.py"])))
    given = {**config.fsdp_config, **config.deepspeed_config}
    assert set(given) <= known, f"accelerate launch ignores {sorted(set(given) - known)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_command_it_shows_names_files_that_exist(path: Path) -> None:
    (line,) = [line for line in path.read_text().splitlines() if "accelerate launch" in line]
    files = [Path(word) for word in line.split() if word.endswith(".yaml")]
    assert files[0] == path.relative_to(REPO)
    assert (REPO / files[1]).is_file()


def test_the_plugin_shards_layers_and_saves_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    (path,) = [path for path in FILES if path.stem == "fsdp2"]
    given = launch_command_parser().parse_args(
        ["--config_file", str(path), "--main_process_port", "0", "x.py"]
    )
    args, _, _ = _validate_launch_command(given)
    for key, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(key, value)
    plugin: Any = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert not plugin.activation_checkpointing
