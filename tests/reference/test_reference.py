"""The pages are enough: a reader written from them restores and recomputes every golden thing."""

import ast
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from . import codecs, merging
from .repository import Repository, digest, identity

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
TABLES = json.loads((GOLDEN / "table.json").read_text())


def test_the_reader_knows_nothing_of_ours() -> None:
    for path in ("codecs.py", "merging.py", "repository.py"):
        for node in ast.walk(ast.parse((HERE / path).read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("mergepipe") for name in names)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_block_by_every_encoding_and_every_file(name: str) -> None:
    repo = Repository(GOLDEN / name)
    for block in repo.records:
        repo.block(block)
    for ref, files in TABLES[name]["files"].items():
        commit = repo.commit(ref)[1]
        assert {path: digest(raw).hex() for path, raw in repo.files(commit[0])} == files


def test_golden_repositories_hold_every_codec() -> None:
    tags = Counter(
        key[1]
        for name in TABLES
        for encodings in Repository(GOLDEN / name).records.values()
        for key in encodings
    )
    assert set(tags) == {0, 1, 2, 3, 4, 5, 6, 7}


def test_a_coarse_layer_follows_another() -> None:
    repo = Repository(GOLDEN / "followed")
    followed = 0
    for name, encodings in repo.records.items():
        for (before, tag, _, length), layers in encodings.items():
            if tag != 7:
                continue
            ((anchor, under, _, _), below), *more = repo.records[before].items()
            assert under == 3 and not more
            before_trits = codecs.coarse(below[0], length // 2)[0]
            trits, named, _, threshold = codecs.change(layers[0], before_trits)
            assert named == anchor
            now, start = (
                (np.frombuffer(repo.block(one), "<u2").astype("<u4") << 16).view("<f4")
                for one in (name, anchor)
            )
            moved = now - start
            large = trits[: len(moved)] > 0
            assert np.abs(moved[large]).min() >= threshold > np.abs(moved[~large]).max()
            assert (np.where(moved[large] < 0, 1, 2) == trits[: len(moved)][large]).all()
            followed += 1
    assert followed


def test_golden_repositories_hold_commits_of_both_versions() -> None:
    trained = Repository(GOLDEN / "trained")
    base, (_, expert) = trained.commit("heads/base")[0], trained.commit("heads/tuned")
    assert expert[9] == base
    assert len(trained.commit("heads/base")[1]) == 9


@pytest.mark.parametrize("name", ["merged", "tuned"])
def test_profiles_are_made_again(name: str) -> None:
    repo = Repository(GOLDEN / name)
    profiles = [one for one, raw in repo.objects.items() if raw.startswith(b"profile ")]
    assert len(profiles) == 2
    for profile in profiles:
        snapshot, base, _ = repo.object(profile, "profile 1")
        assert identity("profile 1", merging.profile(repo, snapshot, base)) == profile


@pytest.mark.parametrize("branch", ["linear", "ties", "dare", "coarse"])
def test_merges_and_manifests_are_made_again(branch: str) -> None:
    repo = Repository(GOLDEN / "merged")
    commit = repo.commit(f"heads/{branch}")[1]
    plan, output = (repo.object(commit[8], "manifest 2")[place] for place in (0, 6))
    assert output == commit[0]
    depths = {depth for line in merging.Plan(repo, plan).lines for one in line[9] for depth in one}
    assert (1 in depths) == (branch == "coarse")
    assert merging.manifest(repo, plan, output) == commit[8]
