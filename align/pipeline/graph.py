"""What each stage reads of the others, found in the paths of its recipe; and which stages to run.

A path below `run_dir` belongs to the stage whose folder it lies in: `data.path: runs/x/pairs/pairs.parquet`
reads `pairs`. So a recipe names its inputs as it always did, and nothing is declared twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from align.config.recipe import StageRecipe, nearest
from align.errors import RecipeError

WRITTEN = ("folder", "store", "write_hashes")
"""Keys that name what a stage writes or keeps beside its own folder: stores, hash lists."""


@dataclass(frozen=True)
class Link:
    """A key of a stage's recipe that lies in an earlier stage's folder."""

    key: str
    source: str


@dataclass(frozen=True)
class Selection:
    """Which stages to run: all, some by name, or a stretch with both ends; the others stay as they are."""

    only: Sequence[str] = ()
    since: str | None = None
    until: str | None = None

    def of(self, names: Sequence[str]) -> list[str]:
        """The selected ones among a pipeline's stages, in its order.

        Raises:
            RecipeError: a name that is not in the pipeline, or ends that leave nothing.
        """
        for name in (*self.only, self.since, self.until):
            if name is not None and name not in names:
                raise RecipeError(f"no stage {name!r} in this pipeline{nearest(name, names)}")
        if self.only and (self.since or self.until):
            raise RecipeError("--only goes without --from and --until", fix="name each stage by --only")
        start = names.index(self.since) if self.since else 0
        end = names.index(self.until) if self.until else len(names) - 1
        if start > end:
            raise RecipeError(f"--from {self.since} comes after --until {self.until}", fix="swap the two")
        return [name for name in names[start : end + 1] if not self.only or name in self.only]


def stage_at(path: str | Path, run_dir: Path) -> tuple[str, str] | None:
    """The name of the folder in `run_dir` that holds `path`, and the rest; None outside, and for `run_dir`.

    >>> stage_at("runs/x/pairs/pairs.parquet", Path("runs/x"))
    ('pairs', 'pairs.parquet')
    """
    try:
        parts = PurePath(path).relative_to(run_dir).parts
    except ValueError:
        return None
    return (parts[0], str(PurePath(*parts[1:]))) if parts and parts[0] != ".." else None


def find_links(
    recipes: Sequence[StageRecipe], run_dir: Path, own_files: Sequence[str] = ()
) -> list[list[Link]]:
    """What each stage reads of earlier ones, in the order of its keys.

    Args:
        recipes: of the stages, in the order to run.
        own_files: files in `run_dir` that the pipeline itself writes.

    Raises:
        RecipeError: a key that lies in the folder of the stage itself, of a later one, or of none.
    """
    names = [recipe.name for recipe in recipes]
    return [_links(recipe, names[:place], names, run_dir, own_files) for place, recipe in enumerate(recipes)]


def _links(
    recipe: StageRecipe, earlier: Sequence[str], names: Sequence[str], run_dir: Path, own_files: Sequence[str]
) -> list[Link]:
    found = []
    for key, path in _texts(recipe.model_dump(exclude={"run_dir", "name"})):
        lies_in = stage_at(path, run_dir)
        if lies_in is None or lies_in[0] in own_files:
            continue
        source = lies_in[0]
        if source in earlier:
            found.append(Link(key, source))
        elif source in names:
            what = (
                "it writes itself" if source == recipe.name else f"only {source!r}, which comes later, writes"
            )
            raise RecipeError(
                f"{recipe.name}.{key} = {path}: reads what {what}",
                fix=f"move the section {source!r} before {recipe.name!r}, or name another folder",
            )
        elif key.rpartition(".")[2] not in WRITTEN and not (run_dir / source).exists():
            raise RecipeError(
                f"{recipe.name}.{key} = {path}: no earlier stage writes it{nearest(source, earlier)}",
                fix="name the folder of an earlier stage, or a file that exists",
            )
    return found


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of all that may be a path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, f"{key}[{index}]")
    elif isinstance(value, str | Path):
        yield key, str(value)
