"""Files that only name other files: InternVL's meta JSON and LLaMA-Factory's dataset_info.json.

https://internvl.readthedocs.io/en/latest/get_started/chat_data_format.html (`root`, `annotation`,
`repeat_time`: below 1 the first part of the rows, above 1 all of them so many times) and
https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md (`file_name`, `formatting`, `ranking`,
`columns`, `tags`). Of a file with several entries, `--entry` names one; InternVL's are read one after the
other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from align.errors import AlignError
from data_tools.importers.dialogue import IMAGES, convert, says
from data_tools.importers.flat_rows import convert as convert_flat
from data_tools.importers.items import Item
from data_tools.importers.json_stream import JsonStream, open_text
from data_tools.importers.published import Format, Options, Published, Row
from data_tools.importers.sources import open_source

_MOST_ENTRIES = 10_000
_FACTORY_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
_FACTORY_TAGS = {"role_tag": "from", "content_tag": "value"}
_FACTORY_ROLES = {"user_tag": "human", "assistant_tag": "gpt", "system_tag": "system"}


def _entries(source: Path, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """The file's entries, or the one that was asked for."""
    with open_text(source) as file:
        named = list(islice(JsonStream(source, file).pairs(), _MOST_ENTRIES))
    if options.entry:
        named = [(name, entry) for name, entry in named if name == options.entry]
        if not named:
            raise AlignError(f"no entry {options.entry!r}", where=str(source), fix="see the file's keys")
    for name, entry in named:
        if not isinstance(entry, dict):
            raise AlignError(f"the entry {name!r} is no object", where=str(source))
    return named


def _internvl_items(source: Path, options: Options) -> Iterator[Item]:
    """Rows of all annotation files, each picture's path behind its root, as often as they are to be
    repeated."""
    for name, entry in _entries(source, options):
        annotation, times = entry.get("annotation"), entry.get("repeat_time", 1)
        if not isinstance(annotation, str):
            raise AlignError(f"the entry {name!r} names no annotation file", where=str(source))
        if isinstance(times, bool) or not isinstance(times, int | float) or not 0 < times < 1000:
            raise AlignError(f"the entry {name!r} has repeat_time {str(times)[:40]!r}", where=str(source))
        if times > 1 and times != int(times):
            raise AlignError(
                f"the entry {name!r} has repeat_time {times}", where=str(source), fix="a whole number"
            )
        file = _beside(source, annotation)
        rows = open_source(str(file))
        count = None if times >= 1 else int(sum(1 for _ in rows.items()) * times)
        for _ in range(max(1, int(times))):
            for item in islice(rows.items(), count):
                yield Item(item.where, _rooted(item.value, entry.get("root"), name), item.done)


def _beside(source: Path, name: str) -> Path:
    """A file by its path, or beside the file that names it."""
    path = Path(name)
    found = next(
        (one for one in (source.parent / path, path, source.parent / path.name) if one.exists()), None
    )
    if found is None:
        raise AlignError(f"no such file: {name}", where=str(source), fix="put it beside this file")
    return found


def _rooted(value: Any, root: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    row = {**value, "source_dataset": name}
    for key in IMAGES:
        if isinstance(root, str) and root and row.get(key):
            found = row[key] if isinstance(row[key], list) else [row[key]]
            paths = [
                os.path.join(root, one) if isinstance(one, str) and "://" not in one else one for one in found
            ]
            row[key] = paths if isinstance(row[key], list) else paths[0]
    return row


def _factory_items(source: Path, options: Options) -> Iterator[Item]:
    """Rows of one entry, under the names that LLaMA-Factory gives its columns by default."""
    named = _entries(source, options)
    if len(named) != 1:
        known = ", ".join(name for name, _ in named[:20])
        raise AlignError(
            f"{len(named)} data sets in this file: {known}", where=str(source), fix="name one with --entry"
        )
    name, entry = named[0]
    place = entry.get("file_name")
    hub = next((entry[key] for key in ("hf_hub_url", "ms_hub_url") if isinstance(entry.get(key), str)), None)
    if not isinstance(place, str) and hub is None:
        raise AlignError(f"the entry {name!r} names no file and no hub id", where=str(source))
    found = open_source(
        str(_beside(source, place)) if isinstance(place, str) else str(hub),
        split=str(entry.get("split", "train")),
    )
    limit = entry.get("num_samples")
    for item in islice(found.items(), limit if isinstance(limit, int) and limit > 0 else None):
        yield Item(item.where, _named(item.value, entry), item.done)


def _named(value: Any, entry: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    columns, tags = (_section(entry, name) for name in ("columns", "tags"))
    flat = entry.get("formatting", "alpaca") != "sharegpt"
    row = dict(value)
    for ours, theirs in columns.items():
        name = {"messages": "conversations"}.get(ours, ours)
        name = _FACTORY_COLUMNS.get(name, name) if flat else name
        if isinstance(theirs, str) and theirs in value and name != theirs:
            row[name] = row.pop(theirs, value[theirs])
    return {key: _tagged(part, tags) for key, part in row.items()} if tags and not flat else row


def _section(entry: dict[str, Any], name: str) -> dict[str, Any]:
    found = entry.get(name)
    return found if isinstance(found, dict) else {}


def _tagged(value: Any, tags: dict[str, Any]) -> Any:
    """Turns under the usual names of role and text."""
    if isinstance(value, list):
        return [_tagged(part, tags) for part in value]
    role, content = (str(tags.get(tag, name)) for tag, name in _FACTORY_TAGS.items())
    if not isinstance(value, dict) or not (role in value and content in value):
        return value
    roles = {tags[tag]: name for tag, name in _FACTORY_ROLES.items() if isinstance(tags.get(tag), str)}
    rest = {key: part for key, part in value.items() if key not in (role, content)}
    said = value[role]
    return {**rest, "from": roles.get(said, said) if isinstance(said, str) else said, "value": value[content]}


def _factory(published: Published) -> list[Row]:
    turns = says(dict(published.fields), "conversations", "messages")
    return convert(published) if turns else convert_flat(published)


FORMATS = (
    Format(
        "internvl_meta",
        "InternVL's meta JSON, which names annotation files, their roots and how often: instruction rows",
        '{"name": {"root": folder, "annotation": "rows.jsonl", "repeat_time": 1, "length"}, ...}',
        convert,
        join=_internvl_items,
        needs=("key", "annotation"),
    ),
    Format(
        "dataset_info",
        "LLaMA-Factory's dataset_info.json, the data set that --entry names",
        '{"name": {"file_name": "rows.json", "formatting": "sharegpt", '
        '"columns": {"messages", "images"}, "tags"}, ...}',
        _factory,
        join=_factory_items,
        needs=("key", "file_name|hf_hub_url|ms_hub_url"),
    ),
)
