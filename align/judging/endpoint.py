"""Somebody else's OpenAI-compatible server: a judge or a writer that is no checkpoint of ours."""

from __future__ import annotations

import os
import re

import httpx
from pydantic import Field, field_validator

from align.errors import AlignError
from align.rows.thoughts import SWITCHES
from align.serving.server import Server
from align.serving.wire import Patience, base_url, url_of


class Endpoint(Patience):
    """Where the server is, which of its models is asked, and how long it is waited for."""

    endpoint: str = Field(
        description="base URL of an OpenAI-compatible server, such as http://host:8000/v1; a bare host gets "
        "/v1, any other path stays as it is"
    )
    model: str | None = Field(
        default=None, description="name to ask for; null takes the server's first, which it must list"
    )
    timeout_seconds: float = Field(
        default=180.0, gt=0, description="longest silence of a request; then it is asked again"
    )
    retry_seconds: float = Field(
        default=600.0, ge=0, description="longest time from a request's first try to its last"
    )
    api_key_env: str = Field(
        default="ALIGN_JUDGE_KEY", description="environment variable with the key; unset sends none"
    )

    thinking: bool | None = Field(
        default=None,
        exclude_if=lambda thinking: thinking is None,
        description="whether the model thinks, sent as chat_template_kwargs (enable_thinking, thinking); "
        "null: as its server has it. Thoughts are kept apart from the reply either way",
    )

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        if not re.match(r"https?://[^/\s]+", endpoint.strip()):
            raise ValueError("must begin with http:// or https:// and a host")
        return endpoint


def connect(settings: Endpoint, where: str) -> Server:
    """The server; its digest is address and model, since nothing more is known of its weights.

    A server that lists no models is believed where the recipe names one.

    Args:
        where: the recipe key that names the endpoint, for the error.

    Raises:
        AlignError: nobody answers there, or it lists no models and none is named.
    """
    url = base_url(settings.endpoint)
    key = os.environ.get(settings.api_key_env, "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    is_vllm = False
    model = settings.model
    try:
        reply = httpx.get(url_of(url, "models"), timeout=10, trust_env=False, headers=headers)
        cards = reply.raise_for_status().json()["data"]
        model = model or str(cards[0]["id"])
        is_vllm = any(card.get("owned_by") == "vllm" for card in cards)
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        if model is None or isinstance(error, httpx.ConnectError):
            section = where.rsplit(".", 1)[0]
            raise AlignError(
                f"no OpenAI-compatible server answers at {url}: {error}",
                where=where,
                fix="start one (`align serve CHECKPOINT`), or name another; a key goes into the environment "
                f"variable {settings.api_key_env}; a server that lists no models needs {section}.model",
            ) from error
    kwargs = {} if settings.thinking is None else dict.fromkeys(SWITCHES, settings.thinking)
    digest = f"judge:{url}#{model}"
    return Server(
        url=url,
        model=str(model),
        digest=f"{digest}#{'' if settings.thinking else 'not '}thinking" if kwargs else digest,
        template_kwargs=kwargs,
        thinks=bool(settings.thinking),
        is_vllm=is_vllm,
        api_key=key,
        patience=settings,
    )
