"""A process that asks for its folder, then lets relatives ask: `python -m tests.engine.facts.family RELATIVE`.

It writes one line of JSON: its own folder, and what the relative says.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from dormouse_engine.facts.publish import run_dir

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ANOTHER = [sys.executable, "-m", "tests.engine.facts.family", "nobody"]


def ask(methods: list[str], said: Connection) -> None:
    """Send the folder of a process that is as many generations away as there are start methods."""
    if not methods:
        said.send(str(run_dir()))
        return
    context: Any = multiprocessing.get_context(methods[0])
    child = context.Process(target=ask, args=(methods[1:], said))
    child.start()
    child.join()


def through_multiprocessing(methods: list[str]) -> str:
    """Return what the last of a row of children says."""
    heard, said = multiprocessing.Pipe(duplex=False)
    ask(methods, said)
    folder: str = heard.recv()
    return folder


def forked() -> str:
    """Return what a child says that is only forked."""
    heard, said = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        said.send(str(run_dir()))
        os._exit(0)
    os.waitpid(child, 0)
    folder: str = heard.recv()
    return folder


def another(command: list[str]) -> str:
    """Return what a program of its own says, which inherits the environment."""
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    folder: str = json.loads(told)["mine"]
    return folder


def main(relative: str) -> None:
    """Ask, let the relative ask, and tell both."""
    mine, theirs = str(run_dir()), ""
    if relative == "forked":
        theirs = forked()
    elif relative == "another":
        theirs = another(ANOTHER)
    elif relative == "Ray":
        with open("default_worker.py", "w") as program:  # noqa: PTH123
            program.write(
                "import json, dormouse_engine.facts.folder as f; print(json.dumps({'mine': str(f.run_dir())}))"
            )
        theirs = another([sys.executable, "default_worker.py"])
    elif relative == "replaced":
        os.execv(sys.executable, ANOTHER)
    elif relative != "nobody":
        theirs = through_multiprocessing(relative.split())
    sys.stdout.write(json.dumps({"mine": mine, "theirs": theirs, "again": str(run_dir())}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
