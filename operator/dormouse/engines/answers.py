"""What an engine's refusal or failure means: from status and body to one of our errors.

The guard writes its word into `error.code` of an OpenAI error. vLLM writes numbers there, or a plain text
body, or FastAPI's `detail`. What a person gets to read is the engine's own text, shortened.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from dormouse.errors import EngineFailedError, EngineRefusedError

TOKEN: Final = "token"  # noqa: S105  (a word of the contract, not a secret)
DEV_ENDPOINTS_OFF: Final = "dev_endpoints_off"
OUT_OF_MEMORY: Final = "out_of_memory"
ENGINE_ERROR: Final = "engine_error"

_OUT_OF_MEMORY = re.compile(r"out[\s_]*of[\s_]*memory", re.IGNORECASE)
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_MESSAGE_LIMIT = 500


def refuse(status: int, body: bytes, *, call: str) -> NoReturn:
    """Raise what an answer that is no success means; `call` names the request, e.g. `POST /sleep`.

    Raises:
        EngineRefusedError: any 4xx; kind `token` (401), `dev_endpoints_off` (404), or the guard's own word.
        EngineFailedError: everything else; kind the guard's word, `out_of_memory` or `engine_error`.
    """
    word, text = _read(body)
    message = f"{call}: {text or 'no reason given'} ({status})"
    if status == 401:
        raise EngineRefusedError(message, kind=TOKEN, status=status)
    if status == 404:
        raise EngineRefusedError(message, kind=DEV_ENDPOINTS_OFF, status=status)
    if 400 <= status < 500:
        raise EngineRefusedError(message, kind=word or "refused", status=status)
    raise EngineFailedError(
        message, kind=word or (OUT_OF_MEMORY if _OUT_OF_MEMORY.search(text) else ENGINE_ERROR)
    )


def _read(body: bytes) -> tuple[str, str]:
    """Return the contract's word ("" where there is none) and a text of one bounded line."""
    text = body.decode(errors="replace")
    word = ""
    try:
        content: Any = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        fault = content.get("error", content.get("detail", content))
        if isinstance(fault, dict):
            code = fault.get("code")
            word = code if isinstance(code, str) and _WORD.fullmatch(code) else ""
            fault = fault.get("message", text)
        text = str(fault)
    return word, " ".join(text.split())[:_MESSAGE_LIMIT]
