"""Several files of rows as the data of one run: how much of each, and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from align.config.recipe import Strict


class DataSet(Strict):
    """One of several files."""

    name: str = Field(default="", description="in tables and in meta.set; by default the file's name")
    path: Path = Field(description="rows, or any file that `align import auto` knows")
    image_root: Path | None = Field(default=None, description="folder of its pictures; null: data.image_root")
    share: float | None = Field(
        default=None, gt=0, le=1, description="its part of all rows; for all sets, which make 1, or for none"
    )
    cap: int | None = Field(default=None, gt=0, description="at most so many rows, drawn by data.seed")


class SeveralSets(Strict):
    """What `data` has besides its one file. A list in place of `data` is its `sets`.

    Attributes:
        sets: files to mix; `path` is then the first of them.
        seed: which rows a cap, a share or the hold-out draws.
        heldout_share: of the pictures, and of rows without any; their rows go to `heldout.jsonl`.
    """

    sets: list[DataSet] = Field(
        default=[], description="several files instead of `path`, each with share or cap"
    )
    seed: int = Field(default=0, description="of sets: which rows a cap, a share or the hold-out draws")
    heldout_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="of sets: share of the pictures whose rows go to heldout.jsonl",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_list(cls, given: Any) -> Any:
        given = {"sets": given} if isinstance(given, list) else given
        if not isinstance(given, dict) or not given.get("sets") or not isinstance(given["sets"], list):
            return given
        first = given["sets"][0]
        path = first.get("path") if isinstance(first, dict) else getattr(first, "path", None)
        return given if path is None else {"path": path, **given}

    @model_validator(mode="after")
    def _fit(self) -> SeveralSets:
        shares = [one.share for one in self.sets]
        if any(share is not None for share in shares):
            told = [share for share in shares if share is not None]
            if len(told) < len(shares) or abs(sum(told) - 1) > 1e-6:
                raise ValueError("shares are for all sets, and make 1 together; a cap alone limits one set")
        names = self.names()
        if len(set(names)) < len(names):
            raise ValueError("two sets of one name; give them a name each")
        if self.heldout_share and not self.sets:
            raise ValueError("heldout_share is for sets; of one file, dev.heldout holds rows out")
        return self

    def files(self) -> list[Path]:
        """The files that are read."""
        return [one.path for one in self.sets] or [self.__dict__["path"]]

    def names(self) -> list[str]:
        """Of the sets, in order."""
        return [one.name or one.path.stem for one in self.sets]
