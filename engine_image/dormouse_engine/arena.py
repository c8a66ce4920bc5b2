"""One anonymous mapping that stands for a piece of device memory, in plain RAM.

Dropping it really gives its pages back (`madvise(MADV_DONTNEED)`): the process's RSS falls, and who reads it afterwards
reads zeros. Saving copies it into a file that has no name, by default a memfd. The copy is kept across sleeps, since
weights don't change while they are served, so that a second sleep costs no copy; it goes when the content changes or is
dropped for good.

A protected arena is one that a GPU would have unmapped: whoever touches it ends the process.

The stand-in engine and the CPU plugin both keep their weights here. Standard library only: the plugin's tests need no
torch for it, and the stand-in and torch each look at the bytes in their own way.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from typing import BinaryIO, Final, TypeAlias

PAGE: Final = mmap.PAGESIZE
CHUNK: Final = 16 << 20
OpenCopy: TypeAlias = Callable[[str], BinaryIO]
"""Opens an empty file without a name, unbuffered, to read and to write; gets a word for humans."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PROT_NONE: Final = 0
# The kernel tells residency in the lowest bit of a byte per page; the other bits are reserved.
_LOWEST_BIT: Final = bytes(value & 1 for value in range(256))


def memfd(name: str) -> BinaryIO:
    """Open a file in RAM; its pages count for the container's memory limit, but not for any process's RSS."""
    return open(os.memfd_create(name, os.MFD_CLOEXEC), "r+b", buffering=0)  # noqa: PTH123 - a descriptor has no path


class Arena:
    """`size` bytes, rounded up to whole pages; the content is zero until somebody writes."""

    def __init__(self, name: str, size: int, *, open_copy: OpenCopy = memfd) -> None:
        self.name = name
        self.size = -(-max(size, 1) // PAGE) * PAGE
        """In bytes, whole pages."""
        self.memory: Final = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        """The mapping itself: whoever looks at it through the buffer protocol may keep looking for its life."""
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self._open_copy = open_copy
        self._copy: BinaryIO | None = None

    @property
    def saved(self) -> bool:
        """Whether a complete copy of this content is there."""
        return self._copy is not None

    def save(self) -> int:
        """Copy the content, unless a copy of it is there; returns the bytes copied.

        Raises:
            OSError: the copy has no room (nothing is lost, and no half copy stays).
        """
        if self._copy is not None:
            return 0
        copy = self._open_copy(f"dormouse-{self.name}")
        try:
            with memoryview(self.memory) as view:
                start = 0
                while start < self.size:
                    start += os.pwrite(copy.fileno(), view[start : start + CHUNK], start)
        except BaseException:
            copy.close()
            raise
        self._copy = copy
        return self.size

    def drop(self) -> None:
        """Give the pages back; the content is zero from now on, and the copy stays."""
        self.memory.madvise(mmap.MADV_DONTNEED)

    def restore(self) -> None:
        """Bring the content back from its copy; nothing happens without one.

        Raises:
            OSError: the copy can't be read (the content is undefined, the copy stays).
        """
        if self._copy is None:
            return
        with memoryview(self.memory) as view:
            start = 0
            while start < self.size:
                got = os.preadv(self._copy.fileno(), [view[start : start + CHUNK]], start)
                if got == 0:
                    raise OSError(
                        errno.EIO, f"the copy of {self.name} ends after {start} of {self.size} bytes"
                    )
                start += got

    def forget_copy(self) -> None:
        """Free the copy: the content changed, or nobody wants it back."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    def protect(self) -> None:
        """Let every access end the process with SIGSEGV, until `unprotect`."""
        self._protect(_PROT_NONE)

    def unprotect(self) -> None:
        """Allow accesses again."""
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)

    def resident_bytes(self) -> int:
        """Bytes of the mapping that are in memory now, page by page from the kernel; OSError when it won't say.

        Not from smaps: the kernel merges neighbouring anonymous mappings there, and counts their pages as ours.
        """
        pages = bytearray(self.size // PAGE)
        vector = (ctypes.c_char * len(pages)).from_buffer(pages)
        if _LIBC.mincore(ctypes.c_void_p(self._address), ctypes.c_size_t(self.size), vector):
            raise OSError(ctypes.get_errno(), f"mincore of the arena {self.name} failed")
        return pages.translate(_LOWEST_BIT).count(1) * PAGE

    def _protect(self, how: int) -> None:
        if _LIBC.mprotect(ctypes.c_void_p(self._address), ctypes.c_size_t(self.size), how):
            raise OSError(ctypes.get_errno(), f"mprotect of the arena {self.name} failed")
