"""What a transition came to: from the engine's answer and the reading after it to an event and an error.

Pure functions. A success is believed only as far as the reading bears it out; a failure always is.
"""

import json
from typing import Any, Final

from dormouse_engine.guard.engine import Reading
from dormouse_engine.guard.errors import Reply, says_out_of_memory, shorten
from dormouse_engine.guard.tier import KV_CACHE, TAGS, Event, Facts
from dormouse_engine.guard.watch import Problem

_SLEPT: Final = {0: Event.SLEPT_0, 1: Event.SLEPT_1, 2: Event.SLEPT_2}
# Level 0 moves no memory: an end that is not known costs nothing to take for a pause.
_SLEEP_UNSURE: Final = {0: Event.SLEPT_0, 1: Event.SLEEP_1_UNSURE, 2: Event.SLEEP_2_UNSURE}
SLEEP_FAILED: Final = {0: Event.SLEPT_0, 1: Event.SLEEP_1_FAILED, 2: Event.SLEEP_2_FAILED}


def problem_of(reply: Reply, path: str) -> Problem:
    """Return the error that the engine's answer tells of."""
    said = reply.body.decode(errors="replace")
    message = shorten(_message(said))
    kind = "out_of_memory" if says_out_of_memory(said) else "engine_error"
    return Problem(kind, f"the engine answered {reply.status} on {path}: {message}")


def sleep_verdict(level: int, reply: Reply, reading: Reading) -> tuple[Event | None, Problem | None]:
    """After `/sleep`. No event means: the engine did not fall asleep.

    An engine pauses its scheduler before it touches memory, and `/is_sleeping` says so: one that failed and is
    not sleeping has touched nothing.
    """
    failed = None if reply.ok else problem_of(reply, "/sleep")
    if failed is not None and reading.sleeping is not False:
        return SLEEP_FAILED[level], failed
    if reading.sleeping is None:
        return _SLEEP_UNSURE[level], Problem("engine_unreachable", reading.problem)
    if reading.sleeping:
        return _SLEPT[level], None
    answered = f"the engine answered {reply.status} on /sleep and is not asleep"
    return None, failed or Problem("not_sleeping", answered)


def wake_verdict(
    asked: tuple[str, ...], facts: Facts, reply: Reply, reading: Reading
) -> tuple[Event | None, Problem | None]:
    """After `/wake_up`. No event means: nothing changed."""
    failed = None if reply.ok else problem_of(reply, "/wake_up")
    if failed is not None:
        # Only an engine that says so is still asleep: of any other nobody knows what is back.
        return (Event.WAKE_FAILED if reading.sleeping else Event.WAKE_BROKEN), failed
    if reading.sleeping is None:
        return Event.WAKE_UNSURE, Problem("engine_unreachable", reading.problem)
    if not reading.sleeping:
        return Event.WOKE, None
    tags = set(asked or TAGS)
    if unknown := sorted(tags.difference(TAGS)):
        # Engines ignore the whole call then.
        return None, Problem(
            "still_sleeping", f"the engine still sleeps: it was asked for unknown tags {', '.join(unknown)}"
        )
    if tags.union(facts.resident).issuperset(TAGS):
        answered = f"the engine answered {reply.status} on /wake_up with all tags asked and still sleeps"
        return Event.WAKE_FAILED, Problem("still_sleeping", answered)
    return (Event.WOKE_KV if KV_CACHE in tags else Event.WOKE_WEIGHTS), None


def _message(body: str) -> str:
    """Return the message inside an engine's JSON error, or the body as it is."""
    try:
        content: Any = json.loads(body)
    except ValueError:
        return body
    if isinstance(content, dict):
        error = content.get("error")
        found = error.get("message") if isinstance(error, dict) else error or content.get("message")
        if isinstance(found, str):
            return found
    return body
