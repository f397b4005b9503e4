"""One line of a doctor's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        group: heading it stands under.
        name: what was looked at.
        status: `ok`; `warn` if something is lost but training and serving work; `fail` if one of them cannot.
        found: what was seen.
        fix: what to do; empty when ok.
    """

    group: str
    name: str
    status: Status
    found: str
    fix: str = ""
