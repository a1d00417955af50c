"""What holds for every test: no result depends on how fast the machine is."""

import os
import sys

from hypothesis import HealthCheck, settings

# Hundreds of processes that tests start would each compile all of our source again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
