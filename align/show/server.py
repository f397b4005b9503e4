"""A small local server of pages: any number of rows, filtered and sorted by any column.

It listens on 127.0.0.1 alone and answers requests that name it so (a page elsewhere cannot reach it by a
name of its own), reads no file but the pictures that a row names inside the image root, and asks nothing of
anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from align.errors import AlignError
from align.inputs.images import resolve_image
from align.show.catalogue import OPERATORS, Catalogue, Filter, Query
from align.show.page import Entry, Picture, jpeg, labelled, rendered
from align.show.views import View

HOST = "127.0.0.1"
_A_PAGE = 25
_SIDE = 1600


class Pages:
    """What the server answers: pages of a catalogue, and the pictures of its rows.

    Args:
        faults: rows that could not be read.
    """

    def __init__(self, title: str, catalogue: Catalogue, image_root: Path, faults: int = 0) -> None:
        self.title, self.catalogue, self.root, self.faults = title, catalogue, image_root, faults

    def page(self, arguments: str) -> str:
        """The page that an address asks for by the part behind its `?`."""
        given = parse_qsl(arguments, keep_blank_values=True, max_num_fields=200)
        query, number = read_query(given)
        found = self.catalogue.found(query)
        last = max((found - 1) // _A_PAGE, 0)
        number = min(number, last)
        rows = self.catalogue.page(query, number * _A_PAGE, _A_PAGE)
        more = {
            "served": True,
            "query": query,
            "columns": self.catalogue.columns,
            "operators": OPERATORS,
            "found": found,
            "count": self.catalogue.count,
            "faults": self.faults,
            "chips": [(words, address(other)) for words, other in _without_each(query)],
            "like": lambda name, value: address(_with(query, Filter(name, "is", value))),
            "pages": lambda: _page_links(query, number, last),
        }
        entries = [Entry(shown, self._pictures(place, shown), (), place) for place, shown in rows]
        return rendered(self.title, entries, "'self'", more)

    def _pictures(self, place: int, shown: View) -> list[Picture]:
        found = []
        for number, (name, label) in enumerate(labelled(shown)):
            try:
                resolve_image(self.root, name)
            except AlignError as error:
                found.append(Picture(name, label, fault=error.what))
            else:
                found.append(Picture(name, label, f"/picture/{place}/{number}"))
        return found

    def picture(self, place: int, number: int) -> bytes | None:
        """A row's picture of this number as JPEG; None where there is none."""
        shown = self.catalogue.row(place)
        names = labelled(shown) if shown is not None else []
        if not 0 <= number < len(names):
            return None
        try:
            return jpeg(resolve_image(self.root, names[number][0]), _SIDE)
        except AlignError:
            return None


def read_query(given: Iterable[tuple[str, str]]) -> tuple[Query, int]:
    """The query and the number of the page, from 0, of an address's arguments; what is senseless is left
    out."""
    one = dict(given)
    many = {name: [value for key, value in given if key == name] for name in ("f", "o", "v")}
    filters = tuple(
        Filter(column, operator, value)
        for column, operator, value in zip(many["f"], many["o"], many["v"], strict=False)
        if column and operator in OPERATORS
    )
    page = one.get("page", "")
    query = Query(one.get("q", ""), filters, one.get("sort", ""), one.get("order") == "down")
    return query, int(page) - 1 if page.isdecimal() and 0 < len(page) < 9 and int(page) > 0 else 0


def address(query: Query, page: int = 0) -> str:
    """The address of a page."""
    given = [("q", query.words), ("sort", query.sort), ("order", "down" if query.descending else "")]
    for item in query.filters:
        given += [("f", item.column), ("o", item.operator), ("v", item.value)]
    kept = [(name, value) for name, value in given if value or name in "fov"]
    return "/?" + urlencode(kept + ([("page", str(page + 1))] if page else []), errors="replace")


def _with(query: Query, item: Filter) -> Query:
    return Query(query.words, (*query.filters, item), query.sort, query.descending)


def _without_each(query: Query) -> list[tuple[str, Query]]:
    """Every condition in words, with the query that does without it."""
    found: list[tuple[str, Query]] = []
    if query.words:
        found.append((f"with {query.words}", Query("", query.filters, query.sort, query.descending)))
    for place, item in enumerate(query.filters):
        others = query.filters[:place] + query.filters[place + 1 :]
        words = f"{item.column} {item.operator} {item.value}"
        found.append((words, Query(query.words, others, query.sort, query.descending)))
    return found


def _page_links(query: Query, number: int, last: int) -> Any:
    from markupsafe import Markup

    links = [("first", 0), ("previous", number - 1), ("next", number + 1), ("last", last)]
    shown = [(name, page) for name, page in links if 0 <= page <= last and page != number]
    parts = [Markup('<a href="{}">{}</a>').format(address(query, page), name) for name, page in shown]
    here = Markup("<span>page {} of {}</span>").format(number + 1, last + 1)
    return Markup("<nav>{} {}</nav>").format(here, Markup(" ").join(parts))


def make_server(pages: Pages, port: int) -> ThreadingHTTPServer:
    """The server, bound; port 0 takes a free one.

    Raises:
        AlignError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers GET alone."""

        server_version, sys_version = "align", ""

        def do_GET(self) -> None:
            """A page, a picture, or 404."""
            if self.headers.get("Host") not in _names(server.server_port):
                self._answer(403, "text/plain", b"this server is for this machine alone")
                return
            parts = urlsplit(self.path)
            names = parts.path.strip("/").split("/")
            if parts.path == "/":
                page = pages.page(parts.query).encode("utf-8", "replace")
                self._answer(200, "text/html; charset=utf-8", page)
            elif (
                len(names) == 3
                and names[0] == "picture"
                and all(n.isdecimal() and len(n) < 10 for n in names[1:])
            ):
                data = pages.picture(int(names[1]), int(names[2]))
                self._answer(
                    *((200, "image/jpeg", data) if data is not None else (404, "text/plain", b"none"))
                )
            else:
                self._answer(404, "text/plain", b"nothing here")

        def _answer(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            kept = "no-store" if kind.startswith("text") else "private, max-age=600"
            self.send_header("Cache-Control", kept)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of each request."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
        return server
    except OSError as error:
        fix = "name another, or 0 for a free one"
        raise AlignError(f"port {port} cannot be used: {error}", where="--port", fix=fix) from error


def _names(port: int) -> tuple[str, str]:
    return (f"{HOST}:{port}", f"localhost:{port}")
