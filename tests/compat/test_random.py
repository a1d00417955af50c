"""Random configs beside mergekit: each difference belongs to a class that is named here.

`make compat` takes a few, `make compat-random` a thousand (COMPAT_RANDOM says how many). The
classes and their counts are printed (`pytest -rP`).
"""

import os
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mergepipe.cli.main import main
from tests.compat.comparing import difference
from tests.compat.models import Tensors, in_order_of, read, vocabulary, write_models
from tests.compat.random_configs import RandomConfig, draw
from tests.compat.running import PYTHON, Job, run_mergekit

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(not PYTHON, reason="MERGEKIT_PYTHON names no Python with mergekit"),
]
COUNT = int(os.environ.get("COMPAT_RANDOM", "40"))
FIRST = int(os.environ.get("COMPAT_RANDOM_FIRST", "0"))
# Shares of weights that a threshold leaves undecided among equals: they are many in bfloat16.
UNDECIDED_BFLOAT16 = {"ties": 0.06, "breadcrumbs": 0.06, "breadcrumbs_ties": 0.06, "sce": 0.02}


def test_random_configs_give_what_mergekit_gives(tmp_path: Path) -> None:
    models = {dtype: write_models(tmp_path / dtype, dtype) for dtype in ("float32", "bfloat16")}
    inputs = {
        dtype: {name: read(path) for name, path in own.items()} for dtype, own in models.items()
    }
    configs = [draw(seed) for seed in range(FIRST, FIRST + COUNT)]
    jobs = []
    for config in configs:
        paths = {name: str(path) for name, path in models[config.dtype].items()}
        _write(tmp_path / f"{config.seed}.yml", config.with_paths(paths))
        _write(tmp_path / f"{config.seed}.mergekit.yml", config.with_paths(paths, "float32"))
        jobs.append(
            Job(tmp_path / f"{config.seed}.mergekit.yml", tmp_path / f"{config.seed}.mergekit")
        )
    errors = run_mergekit(jobs, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    assert main(["-C", str(home), "init"]) == 0
    classes: Counter[str] = Counter()
    unexplained = []
    for config, job, error in zip(configs, jobs, errors, strict=True):
        outcome = _compare(config, job, error, home, list(inputs[config.dtype].values()))
        classes[outcome.partition(":")[0]] += 1
        if outcome.startswith("unexplained"):
            unexplained.append(f"{config.seed} {outcome}\n{yaml.safe_dump(config.document)}")
    for name, count in classes.most_common():
        print(f"{count:5} {name}")
    assert not unexplained, "\n".join(unexplained)


def _write(path: Path, document: object) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _compare(
    config: RandomConfig, job: Job, error: str | None, home: Path, inputs: list[Tensors]
) -> str:
    """The class that a config's outcome belongs to; `unexplained: ...` if to none."""
    recipe = job.out.with_name(f"{config.seed}.yml")
    out = job.out.with_name(f"{config.seed}.ours")
    words = ["-C", str(home), "merge", "--recipe", str(recipe), "--out", str(out), "--seed", "7"]
    code = main([*words, "-b", f"random-{config.seed}"])
    if code != 0:
        if error is not None:
            return "refused by both"
        return f"unexplained: refused with exit {code}, mergekit merges it"
    ours = read(out)
    if error is not None:
        return _only_ours(config, error)
    theirs = read(job.out)
    if config.document.get("tokenizer_source") == "union":
        theirs = in_order_of(theirs, vocabulary(job.out), vocabulary(out))
    try:
        apart = difference(ours, theirs, inputs)
    except AssertionError as mismatch:
        return f"unexplained: {mismatch}"
    undecided = UNDECIDED_BFLOAT16.get(config.method, 0.0) if config.dtype == "bfloat16" else 0.0
    if apart.share == 0:
        return "the same within rounding"
    if apart.share <= undecided:
        return "the same but for equals at a threshold"
    return f"unexplained: {apart}"


def _only_ours(config: RandomConfig, error: str) -> str:
    """Why mergekit fails where a merge is well defined."""
    one_source = any(len(part["sources"]) == 1 for part in config.document.get("slices", []))
    if one_source or len(config.document.get("models", [None, None])) == 1:
        return "only ours: one model"
    return f"unexplained: mergekit fails with {error}"
