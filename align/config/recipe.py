"""Recipes: YAML files read by OmegaConf, overridden by `section.key=value`, checked by pydantic.

Every stage has one recipe class, a subclass of `StageRecipe` that lives beside the stage. Unknown
keys, wrong types and missing files are `RecipeError`s that name the dotted path, the value and the
nearest known key. Nothing here imports torch: a wrong recipe stops within a second.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from yaml import YAMLError

from align.errors import RecipeError

R = TypeVar("R", bound="StageRecipe")
S = TypeVar("S", bound="Strict")


class Strict(BaseModel):
    """A section of a recipe: unknown keys are errors, values are never coerced across types."""

    model_config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())


class StageRecipe(Strict):
    """What every stage's recipe has.

    Attributes:
        how_keys: dotted keys that say how the work is done and not what comes of it; whatever they are, a
            finished folder stays finished and a partial one is resumed.
        limit_keys: dotted keys that only decide whether the result is accepted; a partial folder is resumed
            whatever they are.
        shown_keys: dotted keys that name folders of other stages only to show what they left; `align run`
            leaves them out, and says so, where those stages are not selected and have never run.
        moved_keys: a key that the recipe had once -> where what it said stands now.
    """

    how_keys: ClassVar[frozenset[str]] = frozenset()
    limit_keys: ClassVar[frozenset[str]] = frozenset()
    shown_keys: ClassVar[frozenset[str]] = frozenset()
    moved_keys: ClassVar[Mapping[str, str]] = {}

    stage: str | None = Field(
        default=None,
        exclude=True,
        description="which stage the recipe is of, such as dpo; for `align plan`, and against mistakes",
    )
    run_dir: Path = Field(description="folder of the run; the stage writes to run_dir/name")
    name: str = Field(description="the stage's folder inside run_dir")
    seed: int = Field(default=0, ge=0, description="seeds every random choice of the stage")

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        """A validator, not a pattern of the field: a stage gives the field anew, with its own default."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not name.strip("."):
            raise ValueError("must be one folder's name: letters, digits, _ . -")
        return name

    @field_validator("stage")
    @classmethod
    def _of_this_stage(cls, stage: str | None) -> str | None:
        if stage is not None and stage != where_stage(cls):
            raise ValueError(f"`align {where_stage(cls)}` reads it: run `align {stage}`, or mend the key")
        return stage

    @property
    def stage_dir(self) -> Path:
        """Where the finished stage is."""
        return self.run_dir / self.name


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read one YAML file and its `base`, apply dotted `key=value` overrides, resolve `${...}`.

    Raises:
        RecipeError: missing file, broken YAML, an override that is not `key=value`, or a reference
            to a key that does not exist.
    """
    if not path.is_file():
        raise RecipeError(f"no such recipe: {path}", fix="check the path; `ls recipes` shows what ships")
    for text in overrides:
        if "=" not in text or text.startswith("="):
            raise RecipeError(f"not an override: {text!r}", fix="write section.key=value")
    try:
        merged = OmegaConf.merge(load_tree(path), OmegaConf.from_dotlist(list(overrides)))
        plain = cast(dict[Any, Any], OmegaConf.to_container(merged, resolve=True, throw_on_missing=True))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe: {error}", where=str(path)) from error
    return {str(key): value for key, value in plain.items()}


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """The recipe that dotted `key=value` words alone make."""
    values = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)), resolve=True)
    return cast(dict[str, Any], values)


def load_tree(path: Path) -> DictConfig:
    """One YAML file, laid over the file that its key `base` names (relative to it), if it names one.

    Raises:
        RecipeError: not a mapping, or a base that does not exist or leads back to this file.
        OmegaConfBaseException, YAMLError, UnicodeDecodeError: broken YAML.
    """
    trees: list[DictConfig] = []
    seen: list[Path] = []
    following: Path | None = path
    while following is not None:
        if not following.is_file() or following.resolve() in seen:
            what = "leads back to itself" if following.is_file() else "does not exist"
            raise RecipeError(f"base: {following} {what}", where=str(seen[-1] if seen else path))
        seen.append(following.resolve())
        tree = OmegaConf.load(following)
        if not isinstance(tree, DictConfig):
            raise RecipeError("a recipe is a mapping of keys to values", where=str(following))
        base = tree.pop("base", None)
        trees.insert(0, tree)
        following = None if base is None else following.parent / str(base)
    return cast(DictConfig, OmegaConf.merge(*trees))


def validate(cls: type[S], values: dict[str, Any], where: str) -> S:
    """Check `values` against the recipe class, or a section's; all faults are reported at once.

    Raises:
        RecipeError: each line names the dotted path, the value and, for an unknown key, the nearest
            known one.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = [_fault(cls, values, item) for item in error.errors()]
        raise RecipeError(
            "\n".join(faults), where=where, fix=f"see `align {where_stage(cls)} --help`"
        ) from error


def where_stage(cls: type[Strict]) -> str:
    """The stage, and command, of this recipe class, from its default name."""
    name = cls.model_fields.get("name")
    return name.default if name is not None and isinstance(name.default, str) else "run"


def load_recipe(cls: type[R], path: str | Path, overrides: Sequence[str] = ()) -> R:
    """Read, override and check a stage's recipe."""
    path = Path(path)
    return validate(cls, read_yaml(path, overrides), where=str(path))


def nearest(name: str, known: Iterable[str]) -> str:
    """`(did you mean 'x'?)` for the closest known name, else the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(known)})" if len(known) <= 30 else ""


def _fault(cls: type[BaseModel], values: Any, item: Any) -> str:
    path, owner = _place(cls, [part for part in item["loc"] if not str(part).startswith("function-")])
    dotted = ".".join(path)
    if item["type"] == "extra_forbidden":
        if where := getattr(cls, "moved_keys", {}).get(dotted):
            return f"{dotted!r} is no key any more: it is now {where}"
        fields = [field.alias or name for name, field in owner.model_fields.items()]
        return f"unknown key {dotted!r} = {item['input']!r}{nearest(path[-1], fields)}"
    if item["type"] == "missing":
        field = owner.model_fields.get(path[-1])
        return f"missing key {dotted!r}: {(field.description if field else None) or 'required'}"
    if item["type"] == "union_tag_invalid":  # a section of no kind that there is
        kind, known = item["ctx"]["tag"], item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{dotted}.{_discriminator(item)} = {kind!r}: no such kind{nearest(kind, known)}"
    if item["type"] == "union_tag_not_found":
        return f"missing key '{dotted}.{_discriminator(item)}': which kind it is"
    words = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], Mapping):  # a rule between the keys of a section
        return f"{dotted}: {words}" if dotted else words
    return f"{dotted} = {item['input']!r}: {words}"


def _discriminator(item: Any) -> str:
    return item["ctx"]["discriminator"].strip("'")


def _place(cls: type[BaseModel], location: Sequence[Any]) -> tuple[list[str], type[BaseModel]]:
    """The keys as a recipe has them, and the section of the last one.

    Where a section may be one of several, pydantic's location also has which one it took, by its tag or its
    class; a recipe doesn't.
    """
    path: list[str] = []
    owner, kinds = cls, _kinds(cls)
    for part in map(str, location):
        inside = [get_args(kind)[-1] for kind in kinds if get_origin(kind) in (dict, list)]
        if inside:  # part is a name of a mapping, or a place in a list
            path.append(part)
            kinds = _kinds(inside[0])
            continue
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        taken = [kind for kind in sections if part == kind.__name__ or part in _tags(kind)]
        if len(kinds) > 1 and taken:
            kinds = taken
            continue
        path.append(part)
        owner = sections[0] if sections else owner
        named = [field for name, field in owner.model_fields.items() if part in (name, field.alias)]
        kinds = _kinds(named[0].annotation) if named else []
    return path, owner


def _kinds(annotation: Any) -> list[Any]:
    """What a value may be by its annotation: the members of a union, None left out."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _kinds(member)]
    return [] if annotation is type(None) else [annotation]


def _tags(section: type[BaseModel]) -> list[str]:
    """The words that one of the section's keys is tied to, such as a kind."""
    fields = [field.annotation for field in section.model_fields.values()]
    return [str(word) for kind in fields if get_origin(kind) is Literal for word in get_args(kind)]
