"""One anonymous mapping that holds everything an engine would keep in device memory, tag by tag.

Dropping a tag really gives its pages back (`madvise(MADV_DONTNEED)`): the process's RSS falls, and who reads
the tag afterwards reads zeros. Offloading copies the tag into a memfd first. The copy is kept across sleeps,
since weights don't change while they are served, so that a second sleep costs no copy; it goes when the
content changes or the tag is dropped for good.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np

PAGE = mmap.PAGESIZE
CHUNK = 16 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)


def _pages(size: int) -> int:
    return -(-max(size, 1) // PAGE) * PAGE


class Arena:
    """`sizes` maps tags to bytes (rounded up to pages); the content is zero until somebody writes."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._spans: dict[str, tuple[int, int]] = {}
        offset = 0
        for tag, size in sizes.items():
            self._spans[tag] = (offset, _pages(size))
            offset += _pages(size)
        self._map = mmap.mmap(-1, offset, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes: np.ndarray = np.frombuffer(self._map, dtype=np.uint8)
        self._copies: dict[str, int] = {}

    def view(self, tag: str) -> np.ndarray:
        """Return the tag's bytes, writable in place and valid for the arena's life."""
        offset, size = self._spans[tag]
        return self._bytes[offset : offset + size]

    def size(self, tag: str) -> int:
        """Return the tag's bytes in the mapping."""
        return self._spans[tag][1]

    def drop(self, tag: str) -> None:
        """Give the tag's pages back; its content is zero from now on."""
        offset, size = self._spans[tag]
        self._map.madvise(mmap.MADV_DONTNEED, offset, size)

    def offload(self, tag: str) -> None:
        """Copy the tag to host memory, unless a copy of this content is there, and drop its pages."""
        if tag not in self._copies:
            copy = os.memfd_create(f"dormouse-standin-{tag}", os.MFD_CLOEXEC)
            view = self.view(tag).data
            for start in range(0, len(view), CHUNK):
                os.pwrite(copy, view[start : start + CHUNK], start)
            self._copies[tag] = copy
        self.drop(tag)

    def restore(self, tag: str) -> None:
        """Bring the tag's content back from its copy; nothing happens without one."""
        if tag not in self._copies:
            return
        view = self.view(tag).data
        for start in range(0, len(view), CHUNK):
            os.preadv(self._copies[tag], [view[start : start + CHUNK]], start)

    def forget_copy(self, tag: str) -> None:
        """Free the tag's host copy: the content changed, or nobody wants it back."""
        copy = self._copies.pop(tag, None)
        if copy is not None:
            os.close(copy)

    def copied_bytes(self) -> int:
        """Host bytes that the copies hold."""
        return sum(self.size(tag) for tag in self._copies)

    def resident_bytes(self) -> int:
        """Bytes of the mapping that are in memory now, page by page from the kernel; OSError when it won't say.

        Not from smaps: the kernel merges neighbouring anonymous mappings there, and counts their pages as ours.
        """
        pages = np.zeros(len(self._map) // PAGE, dtype=np.uint8)
        address, size = ctypes.c_void_p(self._bytes.ctypes.data), ctypes.c_size_t(len(self._map))
        if _LIBC.mincore(address, size, ctypes.c_void_p(pages.ctypes.data)):
            raise OSError(ctypes.get_errno(), "mincore of the arena failed")
        return int(np.count_nonzero(pages & 1)) * PAGE
