"""`python -m mergepipe`: the same as `mp`, for where scripts are not on the path."""

import sys

from mergepipe.cli.process import run

if __name__ == "__main__":
    sys.exit(run())
