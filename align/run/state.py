"""What a folder on disk says about the work that a recipe asks for: done, begun, or stale and why.

One place decides. `RunFolder` asks it before a stage runs, with the stage's inputs; `align run --dry-run`
asks it for every stage without running any, with the inputs that the folder's own manifest names: an
unchanged recipe names unchanged inputs, so only their contents need a look.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from align.config.model_ref import ModelRef
from align.config.recipe import StageRecipe
from align.digest import MANIFEST, digest_json, digest_path
from align.errors import AlignError

RECIPE = "recipe.yaml"
END = "end_of_rounds"
"""Key of a failed attempt's manifest: what an `EndOfRounds` said."""
_PLACE = ("run_dir", "name")
_SHOWN = 60

Status = Literal["complete", "stale", "partial", "to do"]
Input = str | Path | ModelRef
"""What a stage reads: a file or folder, known by its contents, or a model, which may be on the hub."""


@dataclass(frozen=True)
class FolderState:
    """What `align run` will find: `complete` is skipped, `partial` is resumed, `stale` is done anew.

    Attributes:
        reasons: why it is not complete, one sentence each.
        end: what the attempt's `EndOfRounds` said, if it had this recipe and these inputs: it would again.
    """

    status: Status
    reasons: tuple[str, ...] = ()
    end: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a stage would do now.

    Attributes:
        inputs: name -> `path` and `digest`, as a manifest keeps them.
    """

    recipe: StageRecipe
    inputs: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, recipe: StageRecipe, inputs: Mapping[str, Input]) -> Wanted:
        """With the inputs that the stage names.

        Raises:
            AlignError: an input that does not exist.
        """
        return cls(recipe, {name: input_record(name, source) for name, source in inputs.items()})

    @cached_property
    def recipe_digest(self) -> str:
        """Of all that decides whether a finished folder is still what is asked for."""
        return digest_json(_tree(self.recipe, self.recipe.how_keys))

    @cached_property
    def work_digest(self) -> str:
        """Of all that decides whether an interrupted attempt may go on."""
        return digest_json(_tree(self.recipe, self.recipe.how_keys | self.recipe.limit_keys))

    def is_done_in(self, folder: Path) -> bool:
        """Whether `folder` holds the finished work, all its files at their sizes."""
        record = read_record(folder)
        return (
            record is not None
            and self._agrees(record, "recipe_digest")
            and not missing_outputs(folder, record)
        )

    def is_begun_in(self, folder: Path) -> bool:
        """Whether `folder` holds an attempt at the same work."""
        record = read_record(folder)
        return record is not None and self._agrees(record, "work_digest")

    def is_refused_in(self, partial: Path) -> bool:
        """Whether an attempt at exactly this ended by `EndOfRounds`."""
        record = read_record(partial)
        return record is not None and bool(record.get(END)) and self._agrees(record, "recipe_digest")

    def is_published_by(self, partial: Path) -> bool:
        """Whether `partial` is finished but for its rename: killed in between."""
        return read_status(partial) == "complete" and self.is_done_in(partial)

    def changes(self, folder: Path, record: Mapping[str, Any]) -> list[str]:
        """In words, all in which the folder's recipe and inputs differ from what is wanted now."""
        found = changed_keys(self.recipe, folder)
        if not found and record.get("recipe_digest") != self.recipe_digest:
            found = ["it was made by another recipe"]
        if found:  # of other inputs then, as the keys say
            return found
        known = {name: item["digest"] for name, item in record.get("inputs", {}).items()}
        for name, item in self.inputs.items():
            if not item["digest"]:
                found.append(f"input {name} is gone: {item['path']}")
            elif known.get(name) != item["digest"]:
                found.append(f"input {name} changed: {item['path']}")
        return found + [f"its file {name} is missing or cut" for name in missing_outputs(folder, record)]

    def _agrees(self, record: Mapping[str, Any], key: Literal["recipe_digest", "work_digest"]) -> bool:
        digests = {name: item["digest"] for name, item in self.inputs.items()}
        recorded = {name: item["digest"] for name, item in record.get("inputs", {}).items()}
        return record.get(key) == getattr(self, key) and recorded == digests


def look(recipe: StageRecipe) -> FolderState:
    """What running this stage now would find, without running anything."""
    final = recipe.stage_dir
    partial = partial_of(final)
    record, begun = read_record(final), read_record(partial)
    stale: list[str] = []
    if record is not None:
        wanted = Wanted(recipe, _digested_anew(record))
        if wanted.is_done_in(final):
            return FolderState("complete")
        stale = wanted.changes(final, record)
    if begun is not None:
        wanted = Wanted(recipe, _digested_anew(begun))
        if wanted.is_published_by(partial):
            return FolderState("complete", ("finished, but for the renaming of its folder",))
        if wanted.is_refused_in(partial):
            return FolderState("partial", ("the last attempt failed", *stale), read_refusal(partial))
        if wanted.is_begun_in(partial):
            return FolderState("partial", ("an interrupted attempt goes on", *stale))
        dropped = [f"an interrupted attempt is discarded: {why}" for why in wanted.changes(partial, begun)]
        return FolderState("stale" if record is not None else "to do", (*stale, *dropped))
    return FolderState("stale", tuple(stale)) if record is not None else FolderState("to do")


def partial_of(final: Path) -> Path:
    """Where a stage writes until it is complete."""
    return final.with_name(final.name + ".partial")


def changed_keys(recipe: StageRecipe, folder: Path) -> list[str]:
    """`dotted.key: old -> new` for each key that counts and differs from the folder's `recipe.yaml`."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(folder / RECIPE), resolve=False)
    except (OSError, OmegaConfBaseException, YAMLError):
        return ["its recipe.yaml cannot be read"]
    before = dict(_leaves(cast(dict[str, Any], loaded)))
    after = dict(_leaves(_tree(recipe, recipe.how_keys)))
    ignored = {*recipe.how_keys, *_PLACE, "stage"}  # which the folder says for `align plan`
    keys = [key for key in {**after, **before} if key not in ignored]
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in keys
        if before.get(key, ...) != after.get(key, ...)
    ]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, whatever its status; None without a readable one."""
    try:
        record = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_status(folder: Path) -> str | None:
    """`running`, `failed` or `complete` as the folder's manifest says; None without a manifest."""
    return (read_record(folder) or {}).get("status")


def read_refusal(partial: Path) -> str:
    """What the `EndOfRounds` said that ended the attempt in this folder; empty for any other attempt."""
    return str((read_record(partial) or {}).get(END) or "")


def missing_outputs(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Files that the manifest lists and that are not there at their size."""
    outputs = record.get("outputs", {})
    return [name for name, item in outputs.items() if not _has_size(folder / name, item["bytes"])]


def input_record(name: str, source: Input) -> dict[str, str]:
    """An input's `path` and `digest`; a model on the hub is known by its id and revision.

    Raises:
        AlignError: it does not exist.
    """
    if isinstance(source, ModelRef) and not source.is_local:
        return {"path": source.name, "digest": source.identity}
    path = Path(source.path if isinstance(source, ModelRef) else source)
    if not path.exists():
        raise AlignError(
            f"missing input {name}: {path}", fix="check the path, or run the stage that writes it"
        )
    return {"path": str(path), "digest": digest_path(path)}


def _digested_anew(record: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The inputs that a manifest names as they are now; the digest of one that is gone is empty."""
    found = {}
    for name, item in record.get("inputs", {}).items():
        path = Path(item["path"])
        is_id = item["digest"] == f"id:{item['path']}"
        digest = digest_path(path) if path.exists() else item["digest"] if is_id else ""
        found[name] = {"path": item["path"], "digest": digest}
    return found


def _tree(recipe: StageRecipe, without: Collection[str]) -> dict[str, Any]:
    """The recipe as it stands, but for where the folder is and these dotted keys."""
    tree = recipe.model_dump(mode="json", exclude=set(_PLACE))
    for key in without:
        *sections, last = key.split(".")
        place: Any = tree
        for section in sections:
            place = place and place[section]
        if place is not None:  # a section that the recipe does not have
            del place[last]
    return tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return "(not there)"
    text = json.dumps(leaves[key], ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
