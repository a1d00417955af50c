"""Daily versions that lean on yesterday's and that a budget can read: stored, read, moved."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.executors.processes import ProcessExecutor
from mergepipe.ids import BlockId, ObjectId, digest
from mergepipe.lazy.store import LazyByteStore
from mergepipe.packs.choice import choose, stored_encodings
from mergepipe.packs.coarse_layers import anchors, coarse_links
from mergepipe.packs.records import Encoding
from mergepipe.transfer.push_refs import PushOptions
from tests.repository.checkpoints import WHO, bf16, commit, new_repository, write_model

SHAPES = {"wide": (512, 512), "tall": (300, 512), "norm": (512,)}
BLOCK = 256 << 10


def write(folder: Path, seed: int, day: int = 0, step: float = 0.1, first: float = 0.0) -> Path:
    """Number `seed` of a family (0: the base), which goes on by `step` of its change every day.

    first  by how much on its first day, if not by as much
    """
    base, own = np.random.default_rng(0), np.random.default_rng(seed)
    tensors = {}
    for name, shape in SHAPES.items():
        values = base.normal(0, 0.1, shape)
        if seed:
            values = values + own.normal(0, 0.003, shape)
            for number in range(day):
                far = first if first and not number else step
                moved = np.random.default_rng(100 * seed + number).normal(0, 0.003 * far, shape)
                values = values + moved
        tensors[name] = bf16(values)
    return write_model(folder, tensors)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, seed, day in (("base", 0, 0), ("one", 1, 0), ("two", 2, 0), ("new", 1, 1)):
        write(folder / name, seed, day)
    return folder


def begun(folder: Path, models: Path, codec: str = "auto") -> Repository:
    """A base and two experts of it."""
    repository = new_repository(folder, BLOCK, codec)
    commit(repository, models / "base", "base")
    for name in ("one", "two"):
        commit(repository, models / name, name, "base")
    return repository


@pytest.fixture
def daily(models: Path, tmp_path: Path) -> Iterator[Repository]:
    """The same, and a day later."""
    with begun(tmp_path / "daily", models) as repository:
        commit(repository, models / "new", "one")
        yield repository


def blocks_of(repository: Repository, revision: str, name: str = "wide") -> list[BlockId]:
    known = {
        entry.name: entry.tensor for _, entry in repository.snapshot_of(revision).named_tensors()
    }
    return repository.objects.tensor(known[name]).block_ids()


def ways_of(repository: Repository, revision: str) -> list[Encoding]:
    blocks = blocks_of(repository, revision)
    options = stored_encodings(repository.storage, blocks)
    return [way for block in blocks for way in options[block]]


def energy(repository: Repository) -> float:
    plan = repository.plan(base="base", experts=["one", "two"], budget="raw:10%", weight=0.5)
    kept = plan.costs.energy_kept
    assert kept is not None
    return kept


def test_as_small_as_on_yesterday_and_as_good_as_on_the_base(models: Path, tmp_path: Path) -> None:
    stored, kept = {}, {}
    for way, codec, base in (
        ("plain", "auto", None),
        ("on base", "fast", "base"),
        ("on yesterday", "auto", "one"),
    ):
        with begun(tmp_path / way, models, codec) as repository:
            commit(repository, models / "new", "one", base)
            # Of blocks: on models of this size profiles weigh as they never do on real ones.
            stored[way] = sum(each.stored_bytes for each in ways_of(repository, "one"))
            kept[way] = energy(repository)
    assert stored["plain"] <= 1.15 * min(stored["on yesterday"], stored["on base"])
    assert abs(kept["plain"] - kept["on base"]) <= 0.02
    assert kept["plain"] > kept["on yesterday"] + 0.1


def test_it_leans_on_yesterday_and_comes_back(
    daily: Repository, models: Path, tmp_path: Path
) -> None:
    assert all(way.follows for way in ways_of(daily, "one"))
    daily.checkout("one", to=tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        models / "new/model.safetensors"
    ).read_bytes()
    report = daily.fsck(read_data=True)
    assert report.ok and not report.notes


@pytest.mark.parametrize("budget", ["raw:5%", "raw:10%", "raw:30%", None])
@pytest.mark.parametrize("experts", [["one", "two"], ["one", "one~1"], ["two", "one~1", "one"]])
def test_what_a_plan_counts_is_what_is_read(
    daily: Repository, budget: str | None, experts: list[str]
) -> None:
    plan = daily.plan(base="base", experts=experts, budget=budget, weight=0.5)
    made = daily.merge(plan, branch="merged")
    assert made.expert_bytes_read == plan.costs.expert_bytes_planned > 0


def test_merges_are_those_of_a_repository_that_leans_on_the_base(
    daily: Repository, models: Path, tmp_path: Path
) -> None:
    with begun(tmp_path / "other", models, "fast") as other:
        commit(other, models / "new", "one", "base")
        assert not any(way.follows for way in ways_of(other, "one"))
        for method in ("linear", "ties", "task_arithmetic"):
            made = [
                one.merge(
                    one.plan(base="base", experts=["one", "two"], method=method, weight=0.5),
                    branch=method,
                ).snapshot
                for one in (daily, other)
            ]
            assert made[0] == made[1]
        assert abs(energy(daily) - energy(other)) <= 0.02


def test_an_exact_read_takes_no_coarse_layer_of_the_new_version(daily: Repository) -> None:
    coarse = sum(way.layers[0].stored_bytes for way in ways_of(daily, "one"))
    whole = sum(way.stored_bytes for one in ("one", "one~1") for way in ways_of(daily, one))
    chosen = choose(daily.storage, blocks_of(daily, "one"))
    read = sum(way.exact_bytes for block, way in chosen.items() if way.base is not None)
    assert read == whole - coarse


def test_chains_end(models: Path, tmp_path: Path) -> None:
    with begun(tmp_path / "days", models) as repository:
        for day in range(1, 6):
            commit(repository, write(tmp_path / "model", 1, day), "one")
            assert all(way.base is not None for way in ways_of(repository, "one"))
            blocks, under = blocks_of(repository, "one"), blocks_of(repository, "base")
            options = stored_encodings(repository.storage, blocks)
            for block, base in zip(blocks, under, strict=True):
                links = coarse_links(block, base, options)
                assert links is not None and 1 <= len(links) <= 2
        assert energy(repository) > 0.6
        report = repository.fsck(read_data=True)
        assert report.ok and not report.notes


def test_two_bases_under_yesterday_make_nothing_certain(daily: Repository) -> None:
    block, under = blocks_of(daily, "one")[0], blocks_of(daily, "base")[0]
    options = dict(stored_encodings(daily.storage, [block]))
    assert coarse_links(block, under, options) is not None
    assert coarse_links(block, blocks_of(daily, "two")[0], options) is None
    [before] = [way.base for way in options[block]]
    assert before is not None and coarse_links(block, before, options) is None
    stranger = Encoding(blocks_of(daily, "two")[0], options[before][0].layers)
    options[before] = [*options[before], stranger]
    assert coarse_links(block, under, options) is None


def test_ways_without_end_are_looked_at_once(daily: Repository) -> None:
    """A hostile store has many ways from each block to the next, round and round."""
    block, under = blocks_of(daily, "one")[0], blocks_of(daily, "base")[0]
    [way] = stored_encodings(daily.storage, [block])[block]
    ring = [BlockId(digest(bytes([number]))) for number in range(20)]
    options = {
        one: [Encoding(ring[(place + step) % 20], way.layers) for step in range(1, 20)]
        for place, one in enumerate(ring)
    }
    assert coarse_links(ring[0], under, options) is None
    assert anchors(ring[0], options) == set()


def test_codecs_that_try_nothing_lean_on_the_base(models: Path, tmp_path: Path) -> None:
    with begun(tmp_path / "fast", models, "fast") as repository:
        commit(repository, models / "new", "one")
        assert not any(way.follows for way in ways_of(repository, "one"))


def test_a_version_that_moved_far_leans_on_the_base(models: Path, tmp_path: Path) -> None:
    with begun(tmp_path / "far", models) as repository:
        commit(repository, write(tmp_path / "model", 1, 1, step=20.0), "one")
        assert not any(way.follows for way in ways_of(repository, "one"))


def test_days_after_one_that_moved_far_follow_it_and_not_the_version_before(
    models: Path, tmp_path: Path
) -> None:
    with begun(tmp_path / "far", models) as repository:
        stored = []
        for day in (1, 2, 3):
            commit(repository, write(tmp_path / "model", 1, day, step=0.02, first=0.55), "one")
            stored.append(sum(way.stored_bytes for way in ways_of(repository, "one")))
            assert all(way.follows == (day > 1) for way in ways_of(repository, "one"))
        assert max(stored[1:]) < 0.5 * stored[0]


def test_versions_that_drift_away_find_another_to_follow(models: Path, tmp_path: Path) -> None:
    with begun(tmp_path / "drift", models) as repository:
        followed = []
        for day in range(1, 9):
            commit(repository, write(tmp_path / "model", 1, day, step=0.15), "one")
            followed.append(all(way.follows for way in ways_of(repository, "one")))
        first = followed.index(False)
        assert 1 < first < 7  # not at once, nor never
        assert followed[first + 1]


def test_processes_store_what_threads_store(
    daily: Repository, models: Path, tmp_path: Path
) -> None:
    with begun(tmp_path / "other", models) as other, ProcessExecutor(2) as executor:
        with other.on(executor):
            commit(other, models / "new", "one")
        ways = [
            [at.header for way in ways_of(one, "one") for at in way.layers]
            for one in (daily, other)
        ]
        assert ways[0] == ways[1] and ways_of(other, "one")[0].follows


def test_processes_merge_what_threads_merge(
    daily: Repository, models: Path, tmp_path: Path
) -> None:
    def merged(repository: Repository) -> tuple[ObjectId, int]:
        plan = repository.plan(base="base", experts=["one", "two"], budget="raw:10%", weight=0.5)
        made = repository.merge(plan, branch="merged")
        return made.snapshot, made.expert_bytes_read

    with begun(tmp_path / "other", models) as other, ProcessExecutor(2) as executor:
        commit(other, models / "new", "one")
        with other.on(executor):
            assert merged(other) == merged(daily)


def test_gc_keeps_what_is_followed_and_drops_the_rest(daily: Repository, models: Path) -> None:
    kept = energy(daily)
    daily.gc(grace_s=0)
    assert energy(daily) == kept
    daily.prune(["one"])  # yesterday's model goes; today's leans on its blocks
    assert energy(daily) == kept
    assert daily.fsck(read_data=True).ok
    gone = blocks_of(daily, "one")[0]
    daily.delete_branch("one", force=True)
    daily.gc(grace_s=0, keep_reflog=False)
    assert not stored_encodings(daily.storage, [gone])[gone]


def test_a_push_and_a_clone_carry_both_layers(daily: Repository, tmp_path: Path) -> None:
    there = new_repository(tmp_path / "there", BLOCK, "auto")
    there.close()
    daily.push(str(tmp_path / "there"), PushOptions(refs=("base", "one", "two")))
    clone(str(tmp_path / "there"), tmp_path / "clone", who=WHO)
    for place, experts in (("there", ["one", "two"]), ("clone", ["origin/one", "origin/two"])):
        with Repository.open(tmp_path / place, who=WHO) as repository:
            base = "base" if place == "there" else "origin/base"
            plan = repository.plan(base=base, experts=experts, budget="raw:10%", weight=0.5)
            assert plan.costs.energy_kept == energy(daily)
            assert repository.fsck(read_data=True).ok


def test_a_push_to_who_has_only_the_base_makes_a_whole_layer(
    daily: Repository, models: Path, tmp_path: Path
) -> None:
    with new_repository(tmp_path / "there", BLOCK, "auto") as there:
        commit(there, models / "base", "base")
    daily.push(str(tmp_path / "there"), PushOptions(refs=("one",), release=True))
    with Repository.open(tmp_path / "there", who=WHO) as there:
        assert not any(way.follows for way in ways_of(there, "one"))
        blocks, under = blocks_of(there, "one"), blocks_of(there, "base")
        options = stored_encodings(there.storage, blocks)
        for block, base in zip(blocks, under, strict=True):
            assert coarse_links(block, base, options) is not None


def test_a_lazy_clone_fetches_the_layers_alone(daily: Repository, tmp_path: Path) -> None:
    clone(str(daily.directory), tmp_path / "lazy", lazy=True, who=WHO)
    with Repository.open(tmp_path / "lazy", who=WHO) as repository:
        assert isinstance(repository.store, LazyByteStore)
        repository.checkout("origin/base", to=tmp_path / "out")
        plan = repository.plan(
            base="origin/base", experts=["origin/one"], budget="raw:12%", weight=0.5
        )
        before = repository.store.received_bytes
        made = repository.merge(plan, branch="merged")
        moved = repository.store.received_bytes - before
        assert made.expert_bytes_read == plan.costs.expert_bytes_planned > 0
        assert moved <= 1.1 * made.expert_bytes_read


def test_purging_yesterday_leaves_today(daily: Repository, models: Path, tmp_path: Path) -> None:
    kept = energy(daily)
    daily.purge("one~1", reason="withdrawn")
    assert energy(daily) >= kept  # it leans on the base again, by a whole layer
    daily.checkout("one", to=tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        models / "new/model.safetensors"
    ).read_bytes()
    assert daily.fsck(read_data=True).ok
