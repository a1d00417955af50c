"""A recipe for each architecture beside an independent merge in float64, without mergekit.

test_zoo.py draws a thousand; these are some of its seeds, one for each family. What draws them
loads transformers and peft, which takes seconds: these tests do, and not whoever collects them.
"""

from pathlib import Path

import pytest

SEEDS = {
    "deepseek_v3": 1,
    "qwen2_vl": 2,
    "qwen3": 3,
    "qwen3_moe": 5,
    "gemma3": 6,
    "mixtral": 8,
    "clip": 11,
    "qwen2": 12,
    "gpt2": 13,
    "bert": 16,
    "bert_classifier": 17,
    "gemma3_text": 18,
    "whisper": 19,
    "gemma2": 20,
    "phi3": 23,
    "llama": 27,
    "vit": 40,
    "t5": 59,
}
PIPELINE = 25


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.mark.parametrize("family", SEEDS)
def test_a_merge_is_that_of_float64(family: str, directory: Path) -> None:
    from tests.compat.zoo_comparing import Comparison
    from tests.compat.zoo_configs import draw_from_zoo
    from tests.compat.zoo_models import Zoo

    config = draw_from_zoo(SEEDS[family])
    assert config.kind.family == family
    outcome = Comparison(config, Zoo(directory / "zoo"), directory).outcome("not run")
    assert outcome.ours.startswith("the float64 merge"), outcome


def test_a_pipeline_is_merged_as_in_float64(directory: Path) -> None:
    from tests.compat.pipelines import PipelineComparison, draw_pipeline

    outcome = PipelineComparison(draw_pipeline(PIPELINE), directory).outcome("not run")
    assert outcome.ours.startswith("the float64 merge"), outcome


def test_all_families_take_part() -> None:
    from tests.compat.zoo import FAMILIES

    assert set(SEEDS) == set(FAMILIES) - {"mistral"}
