"""What servers differ in: where they answer, when to ask again, which fields they refuse, what they reply.

Written after OpenAI's interface and what its imitations make of it: another path, no `GET /models`, HTTP 429
with `Retry-After`, `max_tokens` refused, replies without `usage` or `index`, errors with HTTP 200.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from align.config.recipe import Strict


class Patience(Strict):
    """How long a server is waited for."""

    timeout_seconds: float = Field(
        default=600.0, gt=0, description="longest silence of a request; then it is asked again"
    )
    retry_seconds: float = Field(
        default=3000.0,
        ge=0,
        description="longest time from a request's first try to its last: after HTTP 429, 408 and 5xx, a "
        "time-out or a lost connection it is asked again, at the server's Retry-After, else ever later",
    )


PATIENCE_KEYS = frozenset(Patience.model_fields)


def base_url(endpoint: str) -> str:
    """Where requests go: a bare host gets `/v1`, every other path and a query stay as they are.

    >>> [base_url(f"http://h:8000{rest}") for rest in ("", "/v1/", "/v1beta/openai", "/v1/chat/completions")]
    ['http://h:8000/v1', 'http://h:8000/v1', 'http://h:8000/v1beta/openai', 'http://h:8000/v1']
    """
    parts = urlsplit(endpoint.strip())
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", parts.query, ""))


def url_of(base: str, name: str) -> str:
    """The address of one of a server's resources.

    >>> url_of("http://h/openai/deployments/d?api-version=1", "chat/completions")
    'http://h/openai/deployments/d/chat/completions?api-version=1'
    """
    parts = urlsplit(base)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path}/{name}", parts.query, ""))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a server asks to wait; None where it does not say so in seconds, or as an HTTP date.

    Args:
        headers: by names in lower case.
        now: the time, in seconds since 1970; the clock's by default.

    >>> retry_after({"retry-after": "7"}), retry_after({"retry-after-ms": "1500"}), retry_after({})
    (7.0, 1.5, None)
    >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=40)
    60.0
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(?:\.\d+)?", text):
            return float(text) / scale
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            continue
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    return None


def is_asked_again(status: int, words: str) -> bool:
    """Whether a refused request may be granted later; a used-up quota is not."""
    if status == 429 and re.search(r"insufficient_quota|exceeded your current quota|billing", words):
        return False
    return status in (408, 425, 429) or status >= 500


# Fields whose absence changes what is drawn, and not what is asked.
_FIELDS = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "n",
    "stop",
    "top_logprobs",
    "logprobs",
    "chat_template_kwargs",
    "return_token_ids",
)
_REFUSED = re.compile(
    r"unsupported|not\s+(?:\w+\s+)?support|unknown|unrecogni[sz]ed|unexpected|extra|not\s+permitted|"
    r"not\s+allowed|cannot\s+find\s+field|invalid\s+(?:parameter|argument|field|name)|deprecated|not\s+available|"
    r"does\s+not\s+(?:accept|exist)|do\s+not\s+support|don't\s+support|no\s+longer|removed|instead|"
    r"only\s+the\s+default|not\s+implemented|cannot\s+be\s+(?:set|used)|must\s+(?:not\s+)?be|too\s+short|"
    r"at\s+least|strictly",
    re.I,
)
_A_VALUE = re.compile(
    r"context\s+length|too\s+(?:large|long|many|high)|must\s+be|at\s+(?:most|least)|maximum", re.I
)


def refused_field(status: int, content: bytes, sent: Mapping[str, Any]) -> str | None:
    """The field of a request that a server refuses and that can be left out; None where that is not it.

    A stop text and `n` above 1 are never left out, since the answer would be another.

    Args:
        content: of the reply with HTTP 400 or 422.
        sent: the request's body.

    >>> words = b'{"error": {"message": "Unsupported parameter: `max_tokens`"}}'
    >>> refused_field(400, words, {"max_tokens": 1}), refused_field(400, b"no such model", {"n": 1})
    ('max_tokens', None)
    """
    if status not in (400, 422):
        return None
    text = content.decode("utf-8", errors="replace").replace("\\", "")
    words = own_words(content)
    if not _REFUSED.search(text):
        return None
    named = _named(text)
    for name in _FIELDS:
        if name not in sent or (name == "n" and sent[name] != 1) or (name == "stop" and sent[name]):
            continue
        # A short name is a word of its own in any sentence: only quoted or as the error's field it counts.
        bare = rf"|(?<![\w-]){name}(?![\w-])" if len(name) > 4 else ""
        if name not in named and not re.search(rf"['\"`]{name}['\"`]{bare}", text):
            continue
        if name.startswith("max_") and _A_VALUE.search(words) and "max_completion_tokens" not in words:
            continue
        return name
    return None


def _named(text: str) -> set[str]:
    """Names in the places where errors name a field: `param`, the last of `loc`, `n: Extra inputs`."""
    found = set(re.findall(r"\"param\"\s*:\s*\"([\w.]+)\"", text))
    found |= set(re.findall(r"\"loc\"\s*:\s*\[[^\]]*\"(\w+)\"\s*\]", text))
    return found | set(re.findall(r"(?:^|[\s\"'.])(\w+)\s*:\s*(?:Extra|Unknown|Unsupported|Input)", text))


def own_words(content: bytes) -> str:
    """What a server says of an error, in its own words; at most 300 letters."""
    text = content.decode("utf-8", errors="replace")
    try:
        body = json.loads(text)
    except ValueError:
        return text[:300]
    return (_words_in(body) or text)[:300]


def _words_in(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_words_in, body)))
    if not isinstance(body, dict):
        return ""
    for key in ("error", "message", "msg", "detail", "errors", "error_msg", "reason", "code", "type"):
        if body.get(key):
            where = ".".join(map(str, body["loc"])) + ": " if isinstance(body.get("loc"), list) else ""
            said = body[key] if isinstance(body[key], dict | list) else str(body[key])
            return where + (_words_in(said) or json.dumps(said))
    return ""


def error_in(body: Any) -> tuple[int | None, str] | None:
    """(HTTP status that a body claims, own words) of an error that came with HTTP 200; None without one."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    error = body.get("error")
    if not error and isinstance(choices, list) and choices and isinstance(choices[0], dict):
        error = choices[0].get("error")
    if not error:
        return None
    code = str(error.get("code")) if isinstance(error, dict) else ""
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else None
    return status, (_words_in(error) or json.dumps(error))[:300]
