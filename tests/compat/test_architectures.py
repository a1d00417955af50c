"""A recipe for each architecture beside an independent merge in float64, without mergekit.

test_zoo.py draws a thousand; these are some of its seeds, one for each family.
"""

from pathlib import Path

import pytest

from tests.compat.pipelines import PipelineComparison, draw_pipeline
from tests.compat.zoo import FAMILIES
from tests.compat.zoo_comparing import Comparison
from tests.compat.zoo_configs import draw_from_zoo
from tests.compat.zoo_models import Zoo

SEEDS = (1, 2, 3, 5, 6, 8, 11, 12, 13, 16, 17, 18, 19, 20, 23, 27, 40, 59)
PIPELINE = 25


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.mark.parametrize("seed", SEEDS, ids=[draw_from_zoo(seed).kind.family for seed in SEEDS])
def test_a_merge_is_that_of_float64(seed: int, directory: Path) -> None:
    outcome = Comparison(draw_from_zoo(seed), Zoo(directory / "zoo"), directory).outcome("not run")
    assert outcome.ours.startswith("the float64 merge"), outcome


def test_a_pipeline_is_merged_as_in_float64(directory: Path) -> None:
    outcome = PipelineComparison(draw_pipeline(PIPELINE), directory).outcome("not run")
    assert outcome.ours.startswith("the float64 merge"), outcome


def test_all_families_take_part() -> None:
    taken = {draw_from_zoo(seed).kind.family for seed in SEEDS}
    assert taken == set(FAMILIES) - {"mistral"}
