"""What a refusal or a failure means, by status and body."""

from __future__ import annotations

import json

import pytest

from dormouse.engines.answers import refuse
from dormouse.errors import EngineFailedError, EngineRefusedError


def openai(code: object, message: str = "why") -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": None, "code": code}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, openai("bad_token"), "token"),
        (404, b'{"detail":"Not Found"}', "dev_endpoints_off"),
        (409, openai("not_idle"), "not_idle"),
        (409, openai("drain_timeout"), "drain_timeout"),
        (400, openai(400), "refused"),
        (405, b"", "refused"),
    ],
)
def test_a_refusal_says_its_kind(status: int, body: bytes, kind: str) -> None:
    with pytest.raises(EngineRefusedError) as caught:
        refuse(status, body, call="POST /sleep")
    assert (caught.value.kind, caught.value.status) == (kind, status)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (openai(500, "CUDA out of memory. Tried to allocate 2.00 GiB."), "out_of_memory"),
        (b"torch.OutOfMemoryError: CUDA error: out of memory", "out_of_memory"),
        (openai("still_sleeping"), "still_sleeping"),
        (openai(500, "boom"), "engine_error"),
        (b"Internal Server Error", "engine_error"),
        (b"\xff\xfe", "engine_error"),
        (b"", "engine_error"),
    ],
)
def test_a_failure_says_its_kind(body: bytes, kind: str) -> None:
    with pytest.raises(EngineFailedError) as caught:
        refuse(500, body, call="POST /wake_up")
    assert caught.value.kind == kind


def test_the_message_is_the_engines_own_in_one_short_line() -> None:
    with pytest.raises(EngineFailedError) as caught:
        refuse(500, openai(500, "first\nsecond " + "x" * 9000), call="POST /wake_up")
    message = str(caught.value)
    assert message.startswith("POST /wake_up: first second xxx")
    assert "\n" not in message
    assert len(message) < 600
