import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.errors import MissingObject
from mergepipe.ids import ObjectId, digest
from mergepipe.repository.history import (
    is_ancestor,
    merge_base,
    merge_bases,
    reachable_commits,
    walk,
)

from .models import DictHistory


@st.composite
def histories(draw):
    """Up to 14 commits with any earlier ones as parents and clocks that know no order."""
    history = DictHistory()
    keys: list[ObjectId] = []
    for number in range(draw(st.integers(1, 14))):
        parents = draw(st.lists(st.sampled_from(keys), unique=True, max_size=3)) if keys else []
        keys.append(history.add(str(number), parents, draw(st.integers(0, 5))))
    tips = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3))
    return history, keys, tips


def assert_children_first(history, order):
    place = {key: number for number, key in enumerate(order)}
    assert len(place) == len(order)
    for key in order:
        for parent in history.commits[key].parents:
            assert place[key] < place[parent]


@given(histories())
def test_topological_order_holds_whatever_the_clocks_say(case):
    history, _, tips = case
    order = [key for key, _ in walk(history, tips, topological=True)]
    assert set(order) == history.ancestors(tips)
    assert_children_first(history, order)


@given(histories())
def test_lazy_order_is_topological_within_its_look_ahead(case):
    history, _, tips = case
    order = [key for key, _ in walk(history, tips)]
    assert set(order) == history.ancestors(tips)
    assert_children_first(history, order)


@given(st.data())
def test_with_sane_clocks_order_is_topological_and_newest_first(data):
    history = DictHistory()
    keys: list[ObjectId] = []
    source = random.Random(data.draw(st.integers(0, 10_000)))
    for number in range(150):
        parents = source.sample(keys[-20:], min(len(keys), source.choice([0, 1, 1, 1, 2])))
        floor = max((history.commits[p].time for p in parents), default=0)
        keys.append(history.add(str(number), parents, floor + source.choice([0, 0, 1, 5])))
    order = [key for key, _ in walk(history, keys[-5:])]
    assert set(order) == history.ancestors(keys[-5:])
    assert_children_first(history, order)
    times = [history.commits[key].time for key in order]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("step", [1, 0, -1], ids=["rising", "equal", "falling"])
def test_the_first_of_a_long_line_cost_few_reads(step):
    history = DictHistory()
    tip = history.add("0", (), 10**6)
    for number in range(1, 10_000):
        tip = history.add(str(number), [tip], 10**6 + step * number)
    lines = walk(history, [tip])
    first = [next(lines)[1].message for _ in range(10)]
    assert first == [str(number) for number in range(9_999, 9_989, -1)]
    assert history.reads <= 11


def test_the_first_of_a_history_of_merges_cost_few_reads():
    history = DictHistory()
    tip = history.add("root", (), 0)
    for number in range(1, 2_000):
        left = history.add(f"left {number}", [tip], 3 * number)
        right = history.add(f"right {number}", [tip], 3 * number + 1)
        tip = history.add(f"merge {number}", [left, right], 3 * number + 2)
    lines = walk(history, [tip])
    first = [next(lines)[1].message for _ in range(10)]
    assert first[:4] == ["merge 1999", "right 1999", "left 1999", "merge 1998"]
    assert history.reads < 60


def test_a_side_branch_from_1970_comes_before_where_it_forked():
    history = DictHistory()
    root = history.add("root", (), 1000)
    main = history.add("main", [root], 2000)
    side = root
    for number in range(10):
        side = history.add(f"side {number}", [side], 1)
    merge = history.add("merge", [main, side], 3000)
    order = [commit.message for _, commit in walk(history, [merge])]
    assert order[-1] == "root"
    assert len(order) == 13


def test_walk_names_a_missing_commit():
    history = DictHistory()
    tip = history.add("tip", [ObjectId(digest(b"gone"))])
    with pytest.raises(MissingObject, match=digest(b"gone").hex()):
        list(walk(history, [tip]))


@given(histories())
def test_is_ancestor_agrees_with_sets(case):
    history, keys, tips = case
    expected = history.ancestors([tips[0]])
    assert {key for key in keys if is_ancestor(history, key, tips[0])} == expected


@given(histories())
def test_merge_bases_are_the_maximal_common_ancestors(case):
    history, _, tips = case
    common = set.intersection(*(history.ancestors([tip]) for tip in tips))
    covered = set()
    for key in common:
        covered |= history.ancestors([key]) - {key}
    found = merge_bases(history, tips)
    assert set(found) == common - covered
    assert len(found) == len(set(found))
    best = merge_base(history, tips)
    assert best == (found[0] if found else None)


def test_merge_base_reads_little_of_a_long_history():
    history = DictHistory()
    tip = history.add("0", (), 0)
    for number in range(1, 5_000):
        tip = history.add(str(number), [tip], number)
    ours = history.add("ours", [tip], 6_000)
    theirs = history.add("theirs", [tip], 6_001)
    assert merge_base(history, [ours, theirs]) == tip
    assert history.reads < 20


def test_known_commits_are_left_out_with_what_they_need():
    history = DictHistory()
    pretrained = history.add("pretrained")
    first = history.add("first", (), base=pretrained)
    tip = history.add("tip", [first])
    history.add("unrelated")
    assert {key for key, _ in reachable_commits(history, [tip, tip])} == {pretrained, first, tip}
    assert {key for key, _ in reachable_commits(history, [tip], excluded=[first])} == {tip}
