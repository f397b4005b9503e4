"""From a score folder back to the answers it was made from: weights, sampling, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.config.recipe import read_yaml
from align.digest import MANIFEST
from align.errors import AlignError


@dataclass(frozen=True)
class Source:
    """What the answers' own folders say; empty where they are gone.

    Attributes:
        weights: checkpoint -> sha256 over its weights.
        answers: checkpoint -> digest of its predictions.
        sampling: how answers were drawn, as in the recipe of `align generate`.
        image_roots: task -> folder of its pictures.
        folders: checkpoint -> folder of its predictions.
    """

    weights: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    image_roots: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is the same for equal inputs, wherever they lie."""
        return {
            "checkpoints": dict(self.weights),
            "answers": dict(self.answers),
            "sampling": dict(self.sampling),
        }


def read_source(scores: Path) -> Source:
    """Follow the score folder's recipe to the folders of `align generate`."""
    if not (scores / "recipe.yaml").is_file():
        return Source()
    folders = {
        name: Path(path)
        for name, path in (read_yaml(scores / "recipe.yaml").get("checkpoints") or {}).items()
    }
    recipes = {
        name: read_yaml(folder / "recipe.yaml")
        for name, folder in folders.items()
        if (folder / "recipe.yaml").is_file()
    }
    manifests = {
        name: read_json(folder / MANIFEST)
        for name, folder in folders.items()
        if (folder / MANIFEST).is_file()
    }
    last = next(reversed(recipes.values()), {})
    tasks = last.get("tasks") or {}
    return Source(
        weights={name: digest for name, manifest in manifests.items() if (digest := _weights(manifest))},
        answers={
            name: str(manifest["output_digest"])
            for name, manifest in manifests.items()
            if manifest.get("output_digest")
        },
        sampling=last.get("sampling") or {},
        image_roots={
            name: Path(task["image_root"]) for name, task in tasks.items() if task.get("image_root")
        },
        folders=folders,
    )


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        AlignError: missing, or not JSON.
    """
    if not path.is_file():
        raise AlignError(f"no such file: {path}", fix="check the path, or run the stage that writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise AlignError(f"not JSON: {error}", where=str(path)) from error


def _weights(manifest: Mapping[str, Any]) -> str | None:
    """The digest of the model among a stage's inputs."""
    inputs = manifest.get("inputs") or {}
    found = next(
        (record for name, record in inputs.items() if name.startswith(("model", "checkpoint"))), None
    )
    return str(found["digest"]) if found else None
