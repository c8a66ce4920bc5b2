"""The console script `dormouse-engine`: `serve [MODEL] [flags of vllm serve]` and `preflight [the same]`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from dormouse_engine.serve.command import Installed, build
from dormouse_engine.serve.errors import ServeError
from dormouse_engine.serve.run import become, preflight

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE: Final = """\
usage: dormouse-engine serve [MODEL] [flags of vllm serve]
       dormouse-engine preflight [MODEL] [flags of vllm serve]

serve      check, then start vLLM with sleep mode and with the guard in front
preflight  check only, and say what was found

The model and the common flags can also be variables: DORMOUSE_MODEL, DORMOUSE_MAX_MODEL_LEN, …
(docs/reference/engine-image.md lists them). DORMOUSE_TOKEN_FILE is needed."""
REFUSED: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code, unless the process became the engine: 2 for a start that was refused."""
    verb, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    if verb in {"-h", "--help"}:
        sys.stdout.write(f"{USAGE}\n")
        return 0
    if verb not in {"serve", "preflight"}:
        sys.stderr.write(f"dormouse-engine: {verb!r} is no command\n\n{USAGE}\n" if verb else f"{USAGE}\n")
        return REFUSED
    try:
        engine = Installed.find()
        launch = build(os.environ, rest, engine)
    except ServeError as error:
        sys.stderr.write(f"dormouse-engine: {error}\n")
        return REFUSED
    code = preflight(engine.python, launch.arguments, launch.environ)
    if code == 0 and verb == "serve":
        become(launch)
    return code


if __name__ == "__main__":
    sys.exit(main())
