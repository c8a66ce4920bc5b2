"""`/v1/completions` and `/v1/chat/completions`, whole and as server-sent events.

Decoding is greedy always; a token is a byte. An aborted request is a 200 with `finish_reason: "abort"` and
the text so far, as in vLLM. A client that leaves is dropped from the queue.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from dormouse_engine.standin.core import Aborted
from dormouse_engine.standin.errors import ApiError, error_body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.requests import Request

    from dormouse_engine.standin.engine import Engine

CHAT_DEFAULT_TOKENS = 64


@dataclass(slots=True)
class Job:
    """A parsed request."""

    chat: bool
    prompt: bytes
    max_tokens: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(slots=True)
class Progress:
    """What came out so far: bytes generated, and why it ended."""

    tokens: int = 0
    reason: str = "length"


def _prompt(body: dict[str, Any], *, chat: bool) -> bytes:
    if chat:
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(part, dict) for part in messages):
            raise ApiError(400, "messages must be a list of objects", param="messages")
        lines = [f"<|{part.get('role')}|>{_content(part.get('content'))}\n" for part in messages]
        return "".join([*lines, "<|assistant|>"]).encode()
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, list) and all(isinstance(token, int) and 0 <= token < 256 for token in prompt):
        return bytes(prompt)
    if not isinstance(prompt, str):
        raise ApiError(400, "prompt must be one text, or one list of tokens (bytes)", param="prompt")
    return prompt.encode()


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def parse_job(engine: Engine, body: Any, *, chat: bool) -> Job:
    """Read a request body; raises ApiError 400 or 404 in vLLM's words."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    model = body.get("model") or engine.options.names[0]
    if model not in engine.options.names:
        raise ApiError(404, f"The model `{model}` does not exist.", kind="NotFoundError", param="model")
    prompt = _prompt(body, chat=chat)
    limit = body.get("max_completion_tokens") if chat else None
    limit = body.get("max_tokens") if limit is None else limit
    room = engine.options.max_model_len - len(prompt)
    if limit is None:
        limit = min(CHAT_DEFAULT_TOKENS, room) if chat else 16
    if not isinstance(limit, int) or limit < 1:
        raise ApiError(400, f"max_tokens must be at least 1, got {limit}.", param="max_tokens")
    if limit > room:
        raise ApiError(
            400,
            f"This model's maximum context length is {engine.options.max_model_len} tokens. However, you "
            f"requested {limit} output tokens and your prompt contains {len(prompt)} input tokens.",
        )
    if body.get("n", 1) != 1:
        raise ApiError(400, "the stand-in answers with n=1 only", param="n")
    stop = body.get("stop") or ()
    options = body.get("stream_options") or {}
    return Job(
        chat=chat,
        prompt=prompt,
        max_tokens=limit,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
    )


async def serve(engine: Engine, request: Request, *, chat: bool) -> Response:
    """Answer one request."""
    if engine.rejecting:
        raise ApiError(503, "The engine is paused.", kind="engine_paused", headers={"Retry-After": "1"})
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise ApiError(400, f"JSON decode error: {error}") from error
    job = parse_job(engine, body, chat=chat)
    shape = _Shape(engine, job)
    if job.stream:
        pieces = _counted(engine, job, shape.progress)
        return StreamingResponse(shape.events(pieces), media_type="text/event-stream; charset=utf-8")
    work = asyncio.ensure_future(_text(engine, job, shape.progress))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=499)
        return JSONResponse(shape.whole(work.result()))
    finally:
        work.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _text(engine: Engine, job: Job, progress: Progress) -> str:
    return "".join([piece async for piece in _counted(engine, job, progress)])


async def _counted(engine: Engine, job: Job, progress: Progress) -> AsyncGenerator[str]:
    """Generate text pieces and keep the books: load, metrics, the reason of the end."""
    metrics, began, first = engine.metrics, time.monotonic(), 0.0
    engine.load += 1
    try:
        text = ""
        tokens = engine.core.generate(job.prompt, job.max_tokens)
        try:
            async for token in tokens:
                progress.tokens += 1
                first = first or time.monotonic()
                text += chr(token)
                yield chr(token)
                if any(text.endswith(stop) for stop in job.stop):
                    progress.reason = "stop"
                    break
            else:
                progress.reason = "length" if progress.tokens == job.max_tokens else "stop"
        except Aborted:
            progress.reason = "abort"
        finally:
            await tokens.aclose()
        ended = time.monotonic()
        first = first or ended
        metrics.finished[progress.reason] += 1
        metrics.add("prompt_tokens", len(job.prompt))
        metrics.add("generation_tokens", progress.tokens)
        metrics.add("prefix_cache_queries", len(job.prompt))
        for family, value in (
            ("e2e_request_latency_seconds", ended - began),
            ("time_to_first_token_seconds", first - began),
            ("request_queue_time_seconds", 0.0),
            ("request_prefill_time_seconds", first - began),
            ("request_decode_time_seconds", ended - first),
            ("request_inference_time_seconds", ended - began),
            ("inter_token_latency_seconds", (ended - first) / max(progress.tokens - 1, 1)),
            ("request_time_per_output_token_seconds", (ended - first) / max(progress.tokens - 1, 1)),
            ("request_prompt_tokens", len(job.prompt)),
            ("request_generation_tokens", progress.tokens),
            ("request_params_max_tokens", job.max_tokens),
            ("request_params_n", 1),
            ("iteration_tokens_total", 1),
        ):
            metrics.observe(family, value)
    finally:
        engine.load -= 1


class _Shape:
    """OpenAI's JSON for one request."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self.progress = Progress()
        self._job = job
        self._head = {
            "id": f"{'chatcmpl' if job.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": engine.options.names[0],
        }

    def whole(self, text: str) -> dict[str, Any]:
        """Return the body of a non-streamed answer."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.progress.reason, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self._job.chat else {"text": text}
        kind = "chat.completion" if self._job.chat else "text_completion"
        return self._head | {"object": kind, "choices": [choice], "usage": self._usage()}

    async def events(self, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
        """Yield server-sent events; a failure after the first byte becomes an error event, as in vLLM."""
        try:
            if self._job.chat:
                yield self._event({"role": "assistant", "content": ""}, None)
            async for piece in pieces:
                yield self._event({"content": piece} if self._job.chat else piece, None)
            yield self._event({} if self._job.chat else "", self.progress.reason)
            if self._job.include_usage:
                yield _line(self._chunk([]) | {"usage": self._usage()})
        except RuntimeError as error:
            yield _line(error_body(500, str(error), kind="InternalServerError"))
        yield "data: [DONE]\n\n"

    def _event(self, content: dict[str, Any] | str, reason: str | None) -> str:
        key = "delta" if self._job.chat else "text"
        return _line(self._chunk([{"index": 0, key: content, "logprobs": None, "finish_reason": reason}]))

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._job.chat else "text_completion"
        return self._head | {"object": kind, "choices": choices}

    def _usage(self) -> dict[str, int]:
        prompt, answer = len(self._job.prompt), self.progress.tokens
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _line(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, separators=(',', ':'))}\n\n"
