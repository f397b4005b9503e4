"""The usable pictures of an annotation file, checked and identified when they are first needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.digest import digest_file
from align.errors import AlignError
from align.inputs.images import image_size, resolve_image
from align.rows.tally import Tally


@dataclass
class Pictures:
    """Usable pictures by id: path under the image root, and sha256 of the bytes once it was needed."""

    root: Path
    paths: dict[Any, str]
    tally: Tally
    _sha256: dict[Any, str | None] = field(default_factory=dict)

    def sha256(self, image_id: Any) -> str | None:
        """The picture's identity; None (counted, with the reason) for one that cannot be used."""
        if image_id not in self._sha256:
            self._sha256[image_id] = self._check(image_id)
        return self._sha256[image_id]

    def _check(self, image_id: Any) -> str | None:
        try:
            path = resolve_image(self.root, self.paths[image_id])
            image_size(path)
        except AlignError as error:
            self.tally.drop(error.what.split(":")[0], self.paths[image_id])
            return None
        self.tally.keep()
        return digest_file(path)
