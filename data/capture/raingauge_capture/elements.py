# SPDX-License-Identifier: Apache-2.0
"""Elements on their way into a capture: copied, checked, hashed and written, all at once on different blocks."""

import collections
import concurrent.futures
import contextlib
import errno
import hashlib
import os
import weakref

import numpy as np
import torch

ALIGNMENT = 4096  # tensors start on pages, so that they can be mapped
CHUNK_TOKENS = 4096
BLOCK_TOKENS = 4 * CHUNK_TOKENS  # whole chunks and pages; smaller blocks cost more time
WRITES = 3  # blocks of each of q, k, v that wait for the disk


def _page_aligned(size):
    """Memory that starts on a page, so that it can be written past the page cache."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first: first + size]


class PageCopies:
    """Contiguous CPU copies of tensors that start on a page. Memory is used again once no copy in it is referred to any
    more: fresh pages take longer than the copying."""

    def __init__(self):
        self._blocks = []  # [memory, weak reference to what the copy in it looks through]

    def __call__(self, tensor):
        size = tensor.numel() * tensor.element_size()
        entry = self._unused(size)
        window = entry[0][:size]
        entry[1] = weakref.ref(window)
        return torch.from_numpy(window).view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def _unused(self, size):
        for entry in self._blocks:
            if entry[0].nbytes >= size and entry[1]() is None:
                return entry
        self._blocks.append([_page_aligned(size), None])
        return self._blocks[-1]


class Stream:
    """q, k, v or o of one record: heads taken one after another, each block by block. A block is copied unless it can be
    written past the page cache as it lies, checked, hashed, and handed to the thread that writes."""

    def __init__(self, disk, put, check, hashed):
        self._disk, self._put, self._check, self._hash = disk, put, check, hashlib.sha256() if hashed else None
        self._writes = collections.deque([(None, None)] * WRITES)  # (future, memory that it reads), oldest first
        self.last = None  # future of the head given last

    def take(self, before, index, given):
        if before is not None:
            before.result()  # elements are hashed in the order of the heads
        aligned = given.flags.c_contiguous and given.ctypes.data % ALIGNMENT == 0
        for first in range(0, len(given), BLOCK_TOKENS):
            block = given[first: first + BLOCK_TOKENS]
            write, memory = self._writes.popleft()
            if write is not None:
                write.result()  # nothing looks at the memory any more
            if not aligned:
                if memory is None:
                    memory = _page_aligned(BLOCK_TOKENS * block[0].nbytes)
                bits = memory[:block.nbytes].view(block.dtype).reshape(block.shape)
                np.copyto(bits, block)
                block = bits
            if self._check is not None:
                self._check(index, block)
            if self._hash is not None:
                self._hash.update(block)
            self._writes.append((self._disk.submit(self._put, index, first, block), memory))

    def finish(self):
        """Once everything is in the file: the SHA-256, or None."""
        self.last.result()
        for write, _ in self._writes:
            if write is not None:
                write.result()
        return self._hash and self._hash.hexdigest()


class Threads:
    """Those of one record: one a core for everything up to hashing, which is most of the work, and one that writes."""

    def __init__(self):
        cores = min(4, os.cpu_count() or 1)  # no more than q, k, v, o
        self._work, self.disk = concurrent.futures.ThreadPoolExecutor(cores), concurrent.futures.ThreadPoolExecutor(1)
        self._going, self._ahead = collections.deque(), 2 * cores

    def take(self, stream, *arguments):
        """stream.take(...) later, in the order of the calls; waits while much is under way."""
        while len(self._going) >= self._ahead:
            self._going.popleft().result()
        stream.last = self._work.submit(stream.take, stream.last, *arguments)
        self._going.append(stream.last)

    def close(self):
        """Returns when nothing is under way; drops what was not begun."""
        self._work.shutdown(cancel_futures=True)
        self.disk.shutdown()


class ElementFile:
    """Writes arrays at their places. Whole pages that stand on pages go past the page cache, where the file system
    allows it: a copy less for each, and the disk begins at once."""

    def __init__(self, path):
        self._cached, self._direct = os.open(path, os.O_WRONLY), None
        with contextlib.suppress(OSError, AttributeError):  # some file systems refuse; not every system has it
            self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        self.direct_bytes = 0

    def write(self, bits, offset):
        rest = memoryview(bits).cast("B")
        while rest:
            direct = self._direct is not None and not any(
                place % ALIGNMENT for place in (offset, len(rest), bits.ctypes.data))
            try:
                written = os.pwrite(self._direct if direct else self._cached, rest, offset)
            except OSError as error:
                if not direct or error.errno != errno.EINVAL:
                    raise
                os.close(self._direct)  # opened, yet refused: other alignment is wanted
                self._direct = None
                continue
            self.direct_bytes += written if direct else 0
            rest, offset = rest[written:], offset + written

    def close(self):
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)
