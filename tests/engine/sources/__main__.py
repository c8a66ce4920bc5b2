"""`python -m tests.engine.sources`: fetch what is missing, then print the folder that holds the sources.

With `DORMOUSE_ENGINE_SOURCES` set, that folder is printed and nothing is fetched: it is yours.
"""

from __future__ import annotations

import os
import sys

from tests.engine.sources import fetch, lock


def main() -> int:
    """0, or 1 with the reason on stderr."""
    home = lock.home()
    if "DORMOUSE_ENGINE_SOURCES" not in os.environ:
        try:
            fetch.ensure(lock.read(), home)
        except fetch.SourcesError as error:
            print(error, file=sys.stderr)
            return 1
    print(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
