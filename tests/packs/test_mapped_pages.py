"""Mapped pages are given back, and read again."""

import mmap
import re
import sys
from pathlib import Path

import pytest

from mergepipe.packs.mapped_pages import forget_pages

_SIZE = 1 << 20


def resident_kib(path: Path) -> int:
    """How much of a mapped file is in this process's memory."""
    smaps = Path("/proc/self/smaps").read_text()
    [found] = re.findall(rf"{re.escape(str(path))}\n(?:Size|Kernel|MMU).*?Rss: +(\d+)", smaps, re.S)
    return int(found)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of pages")
def test_pages_are_forgotten_and_come_again(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * (_SIZE // 256))
    with path.open("rb") as file, mmap.mmap(file.fileno(), _SIZE, access=mmap.ACCESS_READ) as data:
        whole = bytes(data)
        assert resident_kib(path) == _SIZE >> 10
        forget_pages(path)
        assert resident_kib(path) == 0
        assert bytes(data) == whole
    forget_pages(path)  # mapped no more
    forget_pages(tmp_path / "nothing")
