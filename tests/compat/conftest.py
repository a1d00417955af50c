"""Without a Python that has mergekit, what compares with it is not loaded: it takes seconds."""

from tests.compat.running import PYTHON

collect_ignore = [] if PYTHON else ["test_compat.py", "test_random.py", "test_zoo.py"]
