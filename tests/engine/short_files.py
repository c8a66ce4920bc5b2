"""A shortage that the kernel itself enforces: no file of this process may grow beyond a size.

It holds inside a `with` in a test's body, not for a whole test: the runner's own report may go to a long file.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let files grow to `size` bytes at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
