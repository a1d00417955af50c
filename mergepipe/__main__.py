"""`python -m mergepipe`: the same as `mp`, for where scripts are not on the path."""

import sys

from mergepipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
