"""Every parser of what others wrote: a mutated input is read, or refused with an error of ours.

No other exception, no signal, no input that takes long, and no memory out of all proportion.
`FUZZ` says how many inputs the long form takes, over all parsers.
"""

import os
import random
import resource
import time
import traceback
from functools import partial
from pathlib import Path

import pytest

from mergepipe.errors import MergepipeError
from tests.properties.trees import scratch
from tests.torture.models import finish, in_child

from .mutations import mutated
from .parser import Parser
from .parsers import PARSERS

INPUTS = int(os.environ.get("FUZZ", "1000000"))
LONGEST_S = 10.0
MOST_MEMORY_KIB = 512 << 10
"""More than that, for inputs of at most 128 KiB: somebody believed a length."""


def fuzz(parser: Parser, inputs: int, seed: int) -> None:
    """Feed mutated inputs to a parser, in a child that a signal may end."""
    with scratch() as folder:
        assert finish(in_child(partial(_fuzz, parser, folder, inputs, seed))) == 0, parser.name


def _fuzz(parser: Parser, folder: Path, inputs: int, seed: int) -> None:
    rng = random.Random(f"{parser.name} {seed}")
    feed, seeds = parser.ready(folder)
    for good in seeds:
        feed(good)
    refusals: tuple[type[BaseException], ...] = (MergepipeError, *parser.refusals)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(inputs):
        data = mutated(rng, seeds)
        begun = time.process_time()
        try:
            feed(data)
        except refusals:
            pass
        except BaseException:
            traceback.print_exc()
            raise AssertionError(f"{parser.name}, input {number}: {data!r}") from None
        assert time.process_time() - begun < LONGEST_S, (parser.name, number, data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_MEMORY_KIB, (parser.name, f"{grown} KiB")


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_mutated_inputs(parser: Parser) -> None:
    fuzz(parser, 100, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_many_mutated_inputs(parser: Parser) -> None:
    inputs = -(-INPUTS // len(PARSERS))
    fuzz(parser, inputs, seed=1)
    print(f"faults: fuzzed {parser.name}: {inputs}")
