"""Giving back mapped pages of a file that was walked through: they count as the process's memory.

A shared mapping's pages are the page cache's. Without them in our page table they are there as
before, and come again at a fault, for any thread that reads them just then, too (madvise(2)).
"""

import os
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4


def forget_pages(file: Path) -> None:
    """Give back the pages of a file that is mapped shared and read-only.

    On other systems than Linux nothing happens.
    """
    import ctypes  # here: most commands have no need of it

    try:
        status, maps = file.stat(), _MAPS.read_text()
    except OSError:
        return
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    libc = ctypes.CDLL(None)
    for line in maps.splitlines():
        addresses, access, _, where, inode, *_ = line.split()
        if where == device and inode == str(status.st_ino) and access == "r--s":
            begin, end = (int(address, 16) for address in addresses.split("-"))
            length = ctypes.c_size_t(end - begin)
            libc.madvise(ctypes.c_void_p(begin), length, ctypes.c_int(_MADV_DONTNEED))
