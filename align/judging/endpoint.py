"""Somebody else's OpenAI-compatible server: a judge or a writer that is no checkpoint of ours."""

from __future__ import annotations

import os

import httpx
from pydantic import Field

from align.config.recipe import Strict
from align.errors import AlignError
from align.serving.server import Server


class Endpoint(Strict):
    """Where the server is, and which of its models is asked."""

    endpoint: str = Field(description="base URL of an OpenAI-compatible server, such as http://host:8000/v1")
    model: str | None = Field(default=None, description="name to ask for; null takes the server's first")
    api_key_env: str = Field(
        default="ALIGN_JUDGE_KEY", description="environment variable with the key; unset sends none"
    )


def connect(settings: Endpoint, where: str) -> Server:
    """The server; its digest is the model's name, since nothing more is known of its weights.

    Args:
        where: the recipe key that names the endpoint, for the error.

    Raises:
        AlignError: nobody answers there.
    """
    url = settings.endpoint.rstrip("/")
    url = url if url.endswith("/v1") else url + "/v1"
    key = os.environ.get(settings.api_key_env, "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.get(f"{url}/models", timeout=10, trust_env=False, headers=headers)
        reply.raise_for_status()
        cards = reply.json()["data"]
        model = settings.model or str(cards[0]["id"])
        is_vllm = any(card.get("owned_by") == "vllm" for card in cards)
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise AlignError(
            f"no OpenAI-compatible server answers at {url}: {error}",
            where=where,
            fix="start one (`align serve CHECKPOINT`), or name another; a key goes into the environment "
            f"variable {settings.api_key_env}",
        ) from error
    return Server(url=url, model=model, digest=f"judge:{model}", is_vllm=is_vllm, api_key=key)
