"""A small client of the Kubernetes API that speaks plain dicts.

The kubelet starts with every test session and sees every pod change, so it does without the generated client,
whose import alone takes longer than starting the API server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Object = dict[str, Any]
log = logging.getLogger("kubelet.api")

_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 2.0
# The server ends a watch after this; a connection that broke without a word is noticed then at the latest.
_WATCH_SECONDS = 60


class ApiError(RuntimeError):
    """The API server refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Requests as the user of a kubeconfig with inline client certificate (`write_kubeconfig` makes such)."""

    def __init__(self, kubeconfig: Path) -> None:
        document = json.loads(kubeconfig.read_text(encoding="utf-8"))
        target = document["clusters"][0]["cluster"]
        user = document["users"][0]["user"]
        self.url: str = target["server"]
        self.authority = base64.b64decode(target["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=self.authority)
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.write_bytes(
                base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
            )
            context.load_cert_chain(pair)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            verify=context,
            timeout=httpx.Timeout(15),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            headers={"User-Agent": "dormouse-process-kubelet"},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """Send one request and return the answered object.

        Raises:
            ApiError: any status of 400 or more.
            httpx.HTTPError: no answer.

        """
        content = None if body is None else json.dumps(body)
        answer = await self._http.request(
            method, path, content=content, headers={"Content-Type": content_type} if content else None
        )
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, _message(answer.text))
        result: Object = answer.json()
        return result

    async def patch(self, path: str, body: Object) -> Object:
        """Send a strategic merge patch: lists such as conditions merge by their keys."""
        return await self.request("PATCH", path, body, "application/strategic-merge-patch+json")

    async def follow(self, path: str, field_selector: str) -> AsyncGenerator[dict[str, Object]]:
        """Yield the objects by uid, as they are now and after every change, for ever.

        It is level-triggered: after any trouble (connection lost, watch expired, 403 because rights come a
        moment later) it lists again. The yielded dict is the same one every time.
        """
        objects: dict[str, Object] = {}
        pause = _FIRST_RETRY_SECONDS
        selector = httpx.QueryParams(fieldSelector=field_selector)
        while True:
            try:
                listed = await self.request("GET", f"{path}?{selector}")
                objects.clear()
                objects.update((item["metadata"]["uid"], item) for item in listed["items"])
                pause = _FIRST_RETRY_SECONDS
                yield objects
                version = listed["metadata"]["resourceVersion"]
                async with contextlib.aclosing(self._watch(path, selector, version)) as events:
                    async for event in events:
                        item = event["object"]
                        if event["type"] == "DELETED":
                            objects.pop(item["metadata"]["uid"], None)
                        else:
                            objects[item["metadata"]["uid"]] = item
                        yield objects
            except (ApiError, httpx.HTTPError, ValueError) as error:
                log.info("%s: %s; listing again in %.1f s", path, error or type(error).__name__, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_RETRY_SECONDS)

    async def _watch(self, path: str, selector: httpx.QueryParams, version: str) -> AsyncGenerator[Object]:
        while True:
            query = selector.merge(
                {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            ).set("timeoutSeconds", str(_WATCH_SECONDS))
            timeout = httpx.Timeout(15, read=_WATCH_SECONDS + 15)
            async with self._http.stream("GET", f"{path}?{query}", timeout=timeout) as answer:
                if answer.status_code >= 400:
                    raise ApiError(answer.status_code, _message((await answer.aread()).decode()))
                async for line in answer.aiter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 500), event["object"].get("message", line))
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]
