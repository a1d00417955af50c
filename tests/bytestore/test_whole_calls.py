"""All that was asked for is moved, however little one call of the system moves."""

import fcntl
import os
import threading
from pathlib import Path

from mergepipe.bytestore.whole_calls import fill_at, read_at, write_all, write_all_at


def test_a_pipe_takes_a_part_at_a_time() -> None:
    """What does not fit a pipe that does not wait is cut short, as on a disk that is full."""
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    data = bytes(range(256)) * (size // 64)
    received = bytearray()

    def drain() -> None:
        while piece := os.read(reader, 1000):
            received.extend(piece)

    draining = threading.Thread(target=drain)
    draining.start()
    write_all(writer, data)
    os.close(writer)
    draining.join()
    os.close(reader)
    assert received == data


def test_less_only_where_the_file_ends(tmp_path: Path) -> None:
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write_all_at(file, b"0123456789", 5)
    assert read_at(file, 7, 3) == b"\0\x000123" + b"4"
    assert read_at(file, 100, 10) == b"56789"
    assert read_at(file, 10, 99) == b""
    out = bytearray(b"..........")
    assert fill_at(file, memoryview(out), 12) == 3
    assert out == b"789......."
    os.close(file)
