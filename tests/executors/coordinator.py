"""A merge in a process of its own, to be killed: it is given a directory, and who works."""

import sys

from mergepipe.api import Repository
from tests.engine.merging import WHO
from tests.executors.family import merged

if __name__ == "__main__":
    with Repository.open(sys.argv[1], who=WHO) as repo:
        merged(repo, sys.argv[2])
