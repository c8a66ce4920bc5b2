"""A process that publishes facts: `python -m tests.engine.facts.worker MODE`. It writes `ready` and ends with stdin."""

import ctypes
import os
import signal
import sys
import time

from dormouse_engine.facts import WorkerFacts
from dormouse_engine.facts.model import Plugin
from dormouse_engine.facts.publish import publish


def facts(rank: int = 0, reason: str = "") -> WorkerFacts:
    plugin = Plugin(version="1", allocator="dormouse", reason=reason)
    return WorkerFacts(pid=os.getpid(), rank=rank, plugin=plugin)


def raises() -> WorkerFacts:
    raise OSError("the driver is gone")


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def busy() -> None:
    """Runs Python code without a pause, as a worker between two calls of its library does."""
    publish(facts)
    say("ready")
    signal.alarm(60)
    while True:
        pass


def locked() -> None:
    """Holds Python's lock for half a second at a time, as a long call that does not let go of it does."""
    publish(facts)
    say("ready")
    signal.alarm(60)
    while True:
        ctypes.PyDLL(None).usleep(500_000)
        time.sleep(0)


def forks() -> None:
    """The child of a publisher publishes itself, and says its own id."""
    publish(lambda: facts(rank=0))
    child = os.fork()
    if child == 0:
        publish(lambda: facts(rank=1))
        signal.alarm(60)
        say(f"child {os.getpid()}")
        signal.pause()
    say(f"parent {os.getpid()}")
    sys.stdin.read()


def quiet_child() -> None:
    """The child of a publisher does not publish and outlives its parent."""
    publish(facts)
    if os.fork() == 0:
        signal.alarm(60)
        say(f"child {os.getpid()}")
        signal.pause()
    sys.stdin.read()


def main() -> None:
    mode = sys.argv[1]
    if mode == "plain":
        publish(lambda: facts(rank=int(sys.argv[2])))
    elif mode == "raises":
        publish(raises)
    elif mode == "large":
        publish(lambda: facts(reason="x" * 2**21))
    elif mode == "twice":
        publish(facts)
        publish(lambda: facts(rank=7))
    else:
        {"busy": busy, "locked": locked, "forks": forks, "quiet-child": quiet_child}[mode]()
        return
    say("ready")
    sys.stdin.read()


if __name__ == "__main__":
    main()
