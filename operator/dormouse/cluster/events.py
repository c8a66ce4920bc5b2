"""Kubernetes Events on SleepingModels: the few things that a person should know, never one per request.

`events.k8s.io/v1`, because it has what is needed for aggregation: the same reason and message within ten minutes
is one Event whose `series` counts. Per model at most `PER_MINUTE` requests are made; what is above that is
counted in the series or left out. Emitting never waits: a bounded queue is worked off in the background, and
while the API server is away Events are tried a few times and then dropped, because they are news, not state.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dormouse.api.names import API_VERSION, KIND
from dormouse.cluster.client import MERGE
from dormouse.cluster.resources import EVENTS
from dormouse.errors import LeadershipLostError, RejectedError, UnavailableError

if TYPE_CHECKING:
    from dormouse.api.conditions import Reason
    from dormouse.cluster.client import Client
    from dormouse.domain.snapshot import ModelKey

logger = logging.getLogger(__name__)

CONTROLLER = "dormouse.dev/operator"
PER_MINUTE = 10
SAME_WITHIN = 600.0
"""Seconds within which equal news is one Event."""

_QUEUE = 1000
_REMEMBERED = 5000
_TRIES = 3
_NOTE_LIMIT = 1024
_INSTANCE_LIMIT = 128


@dataclass(slots=True)
class _News:
    """One Event, and how often its news came."""

    model: ModelKey
    uid: str
    reason: str
    note: str
    kind: str
    first: float
    name: str
    time: str
    count: int = 1
    posted: int = 0
    queued: bool = field(default=False)


class Events:
    """Emits Events; `instance` names this process."""

    def __init__(self, client: Client, *, instance: str) -> None:
        self._client = client
        self._instance = instance[:_INSTANCE_LIMIT]
        self._recent: OrderedDict[tuple[str, str, str], _News] = OrderedDict()
        self._spent: dict[str, deque[float]] = {}
        self._queue: asyncio.Queue[_News] = asyncio.Queue(_QUEUE)
        self.dropped = 0
        """Events that were left out for lack of an API server or of room."""

    def emit(
        self,
        model: ModelKey,
        uid: str,
        reason: Reason,
        message: str,
        *,
        warning: bool = False,
    ) -> None:
        """Say something about a model; returns at once.

        `uid` is the SleepingModel's; `warning`: it went wrong.

        """
        now = asyncio.get_running_loop().time()
        note = _cut(message)
        key = (uid, str(reason), note)
        news = self._recent.get(key)
        if news is None or now - news.first > SAME_WITHIN:
            news = _News(
                model=model,
                uid=uid,
                reason=str(reason),
                note=note,
                kind="Warning" if warning else "Normal",
                first=now,
                name=f"{model.name}.{secrets.token_hex(8)}",
                time=_now(),
            )
            self._recent[key] = news
            self._recent.move_to_end(key)
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        else:
            news.count += 1
            news.time = _now()
        if news.queued or not self._may_spend(uid, now):
            return
        try:
            self._queue.put_nowait(news)
            news.queued = True
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Work the queue off for ever, until cancelled."""
        while True:
            news = await self._queue.get()
            news.queued = False
            try:
                await self._post(news)
            except Exception:
                self.dropped += 1
                logger.exception("an Event could not be posted")
            finally:
                self._queue.task_done()

    async def settle(self) -> None:
        """Return when the queue is worked off."""
        await self._queue.join()

    def _may_spend(self, uid: str, now: float) -> bool:
        if len(self._spent) > _REMEMBERED:
            self._spent.clear()
        spent = self._spent.setdefault(uid, deque())
        while spent and now - spent[0] > 60.0:
            spent.popleft()
        if len(spent) >= PER_MINUTE:
            return False
        spent.append(now)
        return True

    async def _post(self, news: _News) -> None:
        for attempt in range(_TRIES):
            try:
                await self._send(news)
            except UnavailableError as error:
                if error.status == 409:
                    # Our own first try came through after all.
                    news.posted = max(news.posted, 1)
                    return
                logger.debug("an Event was not taken: %s", error)
                await asyncio.sleep(min(10.0, max(2.0**attempt, error.retry_after or 0.0)))
            except LeadershipLostError:
                break
            except RejectedError as error:
                logger.warning("an Event was refused: %s", error)
                break
            else:
                return
        self.dropped += 1

    async def _send(self, news: _News) -> None:
        path = EVENTS.path(news.model.namespace)
        count = news.count
        if news.posted:
            series = {"count": count, "lastObservedTime": news.time}
            try:
                await self._client.call(
                    "PATCH", f"{path}/{news.name}", body={"series": series}, content_type=MERGE
                )
            except RejectedError as error:
                if error.status != 404:
                    raise
                # The cluster forgets Events after an hour or so.
                news.name = f"{news.model.name}.{secrets.token_hex(8)}"
                news.posted = 0
        if not news.posted:
            await self._client.call("POST", path, body=self._body(news, count))
        news.posted = count

    def _body(self, news: _News, count: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": news.model.namespace, "name": news.name},
            "eventTime": news.time,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Decide",
            "reason": news.reason,
            "note": news.note,
            "type": news.kind,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": news.model.namespace,
                "name": news.model.name,
                "uid": news.uid,
            },
        }
        if count > 1:
            body["series"] = {"count": count, "lastObservedTime": news.time}
        return body


def _cut(text: str) -> str:
    """Shorten to what an Event may hold, in bytes."""
    data = text.encode()
    if len(data) <= _NOTE_LIMIT:
        return text
    return data[: _NOTE_LIMIT - 3].decode(errors="ignore") + "…"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
