"""How often something is tried again over a line that breaks, and after how long."""

import random
from collections.abc import Iterator

from msgspec import Struct


class Retries(Struct, frozen=True):
    """`again` more tries, the first after about `first_s`, the last after about `longest_s`."""

    again: int = 4
    first_s: float = 0.1
    longest_s: float = 2.0

    def pauses(self) -> Iterator[float]:
        """Seconds before each further try, half to all of the full pause.

        With jitter: clients that a server threw out together do not come back together.
        """
        growth = (self.longest_s / self.first_s) ** (1 / max(1, self.again - 1))
        for step in range(self.again):
            yield self.first_s * growth**step * random.uniform(0.5, 1.0)
