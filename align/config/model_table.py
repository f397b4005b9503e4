"""The table of models, `recipes/models.yaml`: what is particular about each, and which one a word means.

`align init` writes recipes from it, a pipeline file with a key `models` trains any of them, and memory is
predicted from the sizes that it records.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field
from yaml import YAMLError

from align.config.model_ref import ModelRef
from align.config.recipe import Strict, nearest, validate
from align.errors import RecipeError

TABLE = Path(__file__).resolve().parents[2] / "recipes" / "models.yaml"
"""Beside the package, in a checkout and where it is installed."""


class KnownModel(Strict):
    """One entry. What is left out is as in recipes/base."""

    name: str = Field(description="the key in the table; names folders")
    title: str = Field(description="what people call it")
    path: str = Field(description="its id on the hub, or a folder")
    chat_template: Path | None = Field(default=None, description="Jinja file in place of the checkpoint's")
    attn_implementation: str | None = Field(default=None, description="attention kernels, if not sdpa")
    max_length: int = Field(default=2048, gt=0, description="tokens that a row may have in training")
    max_model_len: int = Field(default=4096, gt=0, description="tokens that vLLM serves")
    sft: dict[str, Any] = Field(default={}, description="over recipes/base/sft.yaml")
    dpo: dict[str, Any] = Field(default={}, description="over recipes/base/dpo.yaml")
    config: dict[str, Any] | None = Field(default=None, description="config.json as far as memory needs it")
    source: str = Field(default="", description="where the sizes in `config` are published")

    def over_base(self, stage: Literal["sft", "dpo"]) -> dict[str, Any]:
        """What a recipe of the stage sets over the stage's base, the run folder not counted.

        SFT starts from the model, DPO from what SFT made of it.
        """
        model: dict[str, Any] = {"path": self.path} if stage == "sft" else {}
        if self.chat_template is not None:
            model["chat_template"] = str(self.chat_template)
        if self.attn_implementation is not None:
            model["attn_implementation"] = self.attn_implementation
        own = {"model": model, "trainer": {"max_length": self.max_length}}
        merged = OmegaConf.merge(own, self.sft if stage == "sft" else self.dpo)
        return cast(dict[str, Any], OmegaConf.to_container(merged))


def read_table(table: Path = TABLE) -> dict[str, KnownModel]:
    """All entries by name, their chat templates as paths from here.

    Raises:
        RecipeError: no such file, broken YAML, or an entry with an unknown or missing key.
    """
    if not table.is_file():
        raise RecipeError(f"no such table of models: {table}", fix="name one as `models`, beside this file")
    try:
        tree = OmegaConf.load(table)
        entries = OmegaConf.to_container(cast(DictConfig, tree), resolve=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the table of models: {error}", where=str(table)) from error
    found = {}
    for name, entry in cast(dict[str, Any], entries).items():
        model = validate(KnownModel, {"name": name, **entry}, where=f"{table}, {name}")
        if model.chat_template is not None:
            model = model.model_copy(update={"chat_template": table.parent / model.chat_template})
        found[name] = model
    return found


def find_model(wanted: str, table: Path = TABLE) -> KnownModel:
    """The entry of that name or hub id; for any other hub id or folder one with nothing particular.

    Raises:
        RecipeError: no entry of that name, and neither a hub id nor a folder.
    """
    known = read_table(table)
    for model in known.values():
        if wanted in (model.name, model.path):
            return model
    if ModelRef(path=wanted).is_local and not Path(wanted).is_dir():
        raise RecipeError(
            f"no model {wanted!r}{nearest(wanted, known)}",
            where=str(table),
            fix="a hub id (org/name), a checkpoint's folder, or a name of this table",
        )
    last = Path(wanted).resolve().name if Path(wanted).is_dir() else wanted.rpartition("/")[2]
    name = re.sub(r"\W+", "_", last.lower()).strip("_") or "model"
    return KnownModel(name=name, title=last, path=wanted)
