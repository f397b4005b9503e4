"""A chat server without a model: says what a function makes of the question, and counts what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class ChatServer:
    """Use as a context manager; speaks as much of OpenAI's protocol as the client needs.

    Attributes:
        answered: question -> how often it got a whole answer.
        dies_after: hangs up on every request after so many answers, as a killed server does.
    """

    def __init__(
        self,
        say: Callable[[str], str | bytes],
        port: int = 0,
        seconds: float = 0.0,
        dies_after: int | None = None,
    ) -> None:
        self.answered: Counter[str] = Counter()
        self.dies_after = dies_after
        self._say, self._seconds = say, seconds
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(json.dumps({"data": [{"id": "no model"}]}).encode())

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = server.answer(request["messages"][-1]["content"][-1]["text"])
                if answer is None:
                    self.close_connection = True
                    return
                self.reply(answer)

            def reply(self, data: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, question: str) -> bytes | None:
        """The body for a question; None when the server is dead. `bytes` go out as they are, unescaped."""
        time.sleep(self._seconds)
        with self._lock:
            if self.dies_after is not None and self.answered.total() >= self.dies_after:
                return None
            self.answered[question] += 1
        said = self._say(question)
        text = b'"' + said + b'"' if isinstance(said, bytes) else json.dumps(said).encode()
        return (
            b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": ' + text + b"}}], "
            b'"usage": {"completion_tokens": 3}}'
        )

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
