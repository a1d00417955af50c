"""Random recipes over the architectures of the zoo: what they make is what an independent merge in
float64 makes, and mergekit, where it can; what differs belongs to a class that has a name.

`make compat-random` takes a thousand (COMPAT_RANDOM, COMPAT_RANDOM_FIRST: how many, from which
seed). The classes and their counts are printed (`pytest -rP`).
"""

import os
import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests.compat.pipelines import PipelineComparison, draw_pipeline
from tests.compat.running import PYTHON, Job, run_mergekit
from tests.compat.zoo_comparing import Comparison, Outcome
from tests.compat.zoo_configs import draw_from_zoo
from tests.compat.zoo_models import Zoo

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(not PYTHON, reason="MERGEKIT_PYTHON names no Python with mergekit"),
]
COUNT = int(os.environ.get("COMPAT_RANDOM", "40"))
PIPELINES = 25  # one in so many configs is of pipelines
FIRST = int(os.environ.get("COMPAT_RANDOM_FIRST", "0"))


def test_every_architecture_merges_as_in_float64(tmp_path: Path) -> None:
    zoo = Zoo(tmp_path / "zoo")
    comparisons: list[Comparison | PipelineComparison] = [
        PipelineComparison(draw_pipeline(seed), tmp_path)
        if seed % PIPELINES == 0
        else Comparison(draw_from_zoo(seed), zoo, tmp_path)
        for seed in range(FIRST, FIRST + COUNT)
    ]
    jobs = [Job(one.write_for_mergekit(), one.theirs) for one in comparisons]
    errors = run_mergekit(jobs, tmp_path)
    outcomes = [_outcome(one, error) for one, error in zip(comparisons, errors, strict=True)]
    _print(outcomes)
    unexplained = [
        f"{one.config} {outcome}\n"
        for one, outcome in zip(comparisons, outcomes, strict=True)
        if outcome.unexplained
    ]
    assert not unexplained, f"{len(unexplained)} unexplained\n" + "\n".join(unexplained)


def _outcome(one: Comparison | PipelineComparison, error: str | None) -> Outcome:
    try:
        return one.outcome(error)
    except Exception:  # whatever it is, it is the finding, and the others go on
        return Outcome("unexplained: exception", "", traceback.format_exc())


def _print(outcomes: list[Outcome]) -> None:
    for title, of in (
        ("ours beside float64", lambda one: one.ours),
        ("mergekit beside ours", lambda one: one.mergekit),
    ):
        print(f"-- {title}")
        for name, count in Counter(of(one) for one in outcomes).most_common():
            print(f"{count:5} {name}")
