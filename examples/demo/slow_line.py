"""In the place of ssh: runs `mp` on this very machine, at the end of a line of a mebibyte a second.

MP_SSH="python slow_line.py COUNT" in the environment of `mp`; what comes over the line is added to
the file COUNT, in bytes.
"""

import subprocess
import sys
import time
from pathlib import Path

BYTES_PER_S = 1 << 20
_PIECE = 16 << 10


def main() -> None:
    count, command = Path(sys.argv[1]), sys.argv[-1]
    passed = 0
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, bufsize=0) as far:
        assert far.stdout is not None
        begin_s = time.monotonic()
        while piece := far.stdout.read(_PIECE):
            # It is busy from when a piece comes, or from when it has passed the one before.
            begin_s = max(begin_s, time.monotonic()) + len(piece) / BYTES_PER_S
            time.sleep(max(0.0, begin_s - time.monotonic()))
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            passed += len(piece)
    with count.open("a") as file:
        file.write(f"{passed}\n")
    sys.exit(far.returncode)


if __name__ == "__main__":
    main()
