"""What a recipe's `model` names, a folder here or an id on the hub, and the identity of its weights.

The one place that tells a folder from a hub id: a recipe that is read, an input that is digested, a model
that is loaded and one that is served all ask `ModelRef.is_local`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from align.config.recipe import Strict
from align.digest import MANIFEST, digest_file, digest_json
from align.errors import AlignError

PIXELS = ("min_pixels", "max_pixels")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def _is_none(value: Any) -> bool:
    return value is None


class ModelRef(Strict):
    """Which checkpoint. A recipe may write its path alone: `model: org/name` is `model: {path: org/name}`."""

    path: str = Field(description="checkpoint folder, or the model's id on the hub (org/name)")
    revision: str | None = Field(default=None, description="hub revision (commit or tag); None is the newest")
    min_pixels: int | None = Field(
        default=None,
        gt=0,
        exclude_if=_is_none,
        description="fewest pixels of a resized image; null: as the processor's files say",
    )
    max_pixels: int | None = Field(
        default=None,
        gt=0,
        exclude_if=_is_none,
        description="most pixels of a resized image, which limits its tokens; null: as the processor's files "
        "say, among them those of a checkpoint merged from such a training",
    )
    thinking: bool | None = Field(
        default=None,
        exclude_if=_is_none,
        description="whether the model thinks before it answers, in training, sampling, judging, evaluation "
        "and serving alike; null: no, where its chat template can be told so (enable_thinking or thinking)",
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": str(value)} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _revision_is_of_the_hub(self) -> ModelRef:
        if self.revision is not None and self.is_local:
            raise ValueError(f"a folder has no revision, and {self.path} is no hub id (org/name)")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, fields: SerializerFunctionWrapHandler) -> Any:
        """As short as recipes write it: the digest of a recipe with a path alone stays what it was."""
        alone = self.revision is None and not self.has_pixel_budget and self.thinking is None
        return self.path if type(self) is ModelRef and alone else fields(self)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """For editors: a section, or its path alone."""
        section = handler(core_schema)
        return {"anyOf": [{"type": "string"}, section]}

    @classmethod
    def of(cls, model: ModelRef | str | Path) -> ModelRef:
        """The same, also from a hub id or a path as text, and from a `Path`, which is never a hub id."""
        if isinstance(model, ModelRef):
            return model
        found = cls(path=str(model))
        return found if isinstance(model, str) or found.is_local else cls(path=f"./{model}")

    @property
    def is_local(self) -> bool:
        """Whether `path` is a folder here, or can only be meant as one, and not a hub id.

        `owner/name` is a hub id unless there is such a path, or a folder `owner` where it could be written.
        """
        path = Path(self.path)
        return not _HUB_ID.fullmatch(self.path) or path.exists() or path.parent.is_dir()

    @property
    def has_pixel_budget(self) -> bool:
        """Whether images are resized otherwise than the checkpoint's files say."""
        return self.min_pixels is not None or self.max_pixels is not None

    @property
    def name(self) -> str:
        """For messages and manifests: the path, or `org/name@revision`."""
        return f"{self.path}@{self.revision}" if self.revision else self.path

    @property
    def identity(self) -> str:
        """Of a model on the hub: `id:org/name@revision`. The weights of a folder are known by `digest`."""
        return f"id:{self.name}"

    def folder(self) -> Path:
        """Where its files are: `path`, or the hub's cache."""
        if self.is_local:
            return Path(self.path)
        from transformers.utils.hub import cached_file

        return Path(str(cached_file(self.path, "config.json", revision=self.revision))).parent

    def digest(self) -> str:
        """Of a folder's files by relative name and bytes, wherever it lies; of a hub model, `identity`.

        Files that a finished stage's manifest lists are not read again.

        Raises:
            AlignError: a path that does not exist or is not a checkpoint.
        """
        if not self.is_local:
            return self.identity
        path = Path(self.path)
        if not path.is_dir():
            raise AlignError(f"no such checkpoint: {path}", fix="run the merge stage that writes it")
        if not (path / "config.json").is_file():
            raise AlignError(
                f"not a checkpoint: {path} has no config.json",
                fix="name a merged checkpoint folder; an adapter must be merged first (`align merge`)",
            )
        known = _listed_outputs(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = {file: file.relative_to(path).as_posix() for file in files}
        return digest_json({name: known.get(name) or digest_file(file) for file, name in names.items()})

    def answering_digest(self) -> str:
        """Of what answers: the weights' `digest`, and the pixel budget where there is one.

        Raises:
            AlignError: as `digest`.
        """
        found = self.digest()
        return digest_json([found, self.min_pixels, self.max_pixels]) if self.has_pixel_budget else found

    def config(self) -> dict[str, Any] | None:
        """A checkpoint folder's `config.json`; None for a hub id."""
        path = Path(self.path) / "config.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def longest_context(self) -> int | None:
        """The context length that the model's config states, in tokens; None for a hub id."""
        config = self.config() or {}
        text = config.get("text_config") or config
        found = text.get("max_position_embeddings") or text.get("n_positions")
        return int(found) if found else None


def _listed_outputs(path: Path) -> dict[str, str]:
    """Name below `path` -> sha256, from the manifest of the finished stage folder that holds it."""
    try:
        outputs = json.loads((path.parent / MANIFEST).read_text()).get("outputs", {})
    except (OSError, ValueError):
        return {}
    start = f"{path.name}/"
    return {
        name.removeprefix(start): item["sha256"] for name, item in outputs.items() if name.startswith(start)
    }
