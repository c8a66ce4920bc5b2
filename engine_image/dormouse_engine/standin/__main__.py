"""`python -m dormouse_engine.standin`, and the console script `dormouse-standin`."""

from __future__ import annotations

import os
import sys

from dormouse_engine.standin.options import parse_options


def main() -> None:
    """Run one engine; exits with its code."""
    options = parse_options(sys.argv[1:])
    # Before numpy is imported: its BLAS would start a thread per core, each with its own buffers.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dormouse_engine.standin.server import main as run  # noqa: PLC0415  numpy must come after the line above

    sys.exit(run(options))


if __name__ == "__main__":
    main()
