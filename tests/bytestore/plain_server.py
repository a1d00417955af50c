"""What `mp serve --stdio -- DIR` is to a repository, for a plain directory."""

import sys
from pathlib import Path

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.transfer.serving.stdio import serve_stdio
from mergepipe.transfer.serving.surface import EVERYTHING

if __name__ == "__main__":
    with LocalByteStore(Path(sys.argv[-1])) as served:
        serve_stdio(served, sys.stdin.buffer, sys.stdout.buffer, surface=EVERYTHING)
