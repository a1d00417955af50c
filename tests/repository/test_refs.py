import itertools
import multiprocessing
import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import Corruption, InvalidRefName, Locked, RefExists, RefMoved
from mergepipe.ids import ObjectId, digest
from mergepipe.repository import locks
from mergepipe.repository.reflog import Reflog, ReflogEntry, Signature, parse_line
from mergepipe.repository.refnames import branch_ref, check_ref_name, short_name, tag_ref
from mergepipe.repository.refs import ANY, RefStore

WHO = Signature("Ada <ada@example.org>", 1_700_000_000, 120)
A, B, C = (ObjectId(digest(name)) for name in (b"a", b"b", b"c"))
MAIN = "refs/heads/main"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "HEAD").write_text(f"ref: {MAIN}\n")
    return tmp_path


def open_refs(folder, timeout_s=600.0):
    return RefStore(
        LocalByteStore(folder),
        lock=folder / "lock",
        lock_timeout_s=timeout_s,
        reflog=Reflog(folder / "logs"),
    )


@pytest.fixture
def refs(folder):
    return open_refs(folder)


def make(refs, name, value=A):
    return refs.update(name, value, expected=None, who=WHO, why="test")


def test_a_branch_is_born_moves_and_goes(refs):
    assert refs.head().branch == MAIN
    assert refs.head().short_branch == "main"
    assert refs.head().commit is None
    assert make(refs, MAIN) is None
    assert refs.update(MAIN, B, expected=A, who=WHO, why="second") == A
    assert refs.read(MAIN) == refs.read("HEAD") == refs.head().commit == B
    assert refs.list() == {MAIN: B}
    for name in (MAIN, "HEAD"):
        moves = [(entry.old, entry.new, entry.why) for entry in refs.reflog.read(name)]
        assert moves == [(A, B, "second"), (None, A, "test")]
    assert refs.reflog.read(MAIN)[0].who == WHO
    assert refs.delete(MAIN, expected=B, who=WHO) == B
    assert refs.read(MAIN) is None
    assert refs.reflog.read(MAIN) == []
    assert refs.reflog.read("HEAD")[0].new is None
    assert refs.delete(MAIN, expected=None, who=WHO) is None


def test_only_the_expected_value_is_replaced(refs):
    make(refs, MAIN)
    with pytest.raises(RefMoved) as caught:
        refs.update(MAIN, C, expected=B, who=WHO, why="x")
    assert caught.value.exit_code == 14
    with pytest.raises(RefExists):
        refs.update(MAIN, C, expected=None, who=WHO, why="x")
    with pytest.raises(RefMoved):
        refs.delete(MAIN, expected=B, who=WHO)
    assert refs.read(MAIN) == A
    assert len(refs.reflog.read(MAIN)) == 1
    assert refs.update(MAIN, C, expected=ANY, who=WHO, why="x") == A


def test_standing_still_is_no_move(refs):
    make(refs, MAIN)
    refs.update(MAIN, A, expected=A, who=WHO, why="again")
    assert len(refs.reflog.read(MAIN)) == 1


def test_another_branch_moves_without_head(refs):
    make(refs, MAIN)
    make(refs, "refs/heads/dev", B)
    assert refs.head().commit == A
    assert len(refs.reflog.read("HEAD")) == 1


def test_head_switches_detaches_and_waits_for_a_first_commit(refs):
    make(refs, MAIN)
    make(refs, "refs/heads/dev", B)
    refs.set_head("refs/heads/dev", who=WHO, why="switch")
    assert refs.head().commit == B
    refs.set_head(C, who=WHO, why="detach")
    assert (refs.head().branch, refs.head().commit) == (None, C)
    refs.set_head("refs/heads/new", who=WHO, why="orphan")
    assert (refs.head().branch, refs.head().commit) == ("refs/heads/new", None)
    moves = [(entry.old, entry.new) for entry in refs.reflog.read("HEAD")]
    assert moves == [(C, None), (B, C), (A, B), (None, A)]
    with pytest.raises(InvalidRefName):
        refs.set_head("refs/tags/v1", who=WHO, why="x")


@pytest.mark.parametrize("content", [b"", b"zz", A.hex().upper().encode(), A.hex()[:63].encode()])
def test_a_damaged_ref_is_named_and_can_be_replaced(folder, refs, content):
    make(refs, MAIN)
    (folder / MAIN).write_bytes(content)
    for broken in (refs.head, refs.list, lambda: refs.read(MAIN)):
        with pytest.raises(Corruption, match=MAIN):
            broken()
    with pytest.raises(Corruption):
        refs.update(MAIN, B, expected=A, who=WHO, why="x")
    assert refs.names() == [MAIN]
    refs.update(MAIN, B, expected=ANY, who=WHO, why="repair")
    assert refs.read(MAIN) == B


@pytest.mark.parametrize("content", [b"", b"ref: ../../etc/passwd\n", b"ref: \xff\n", None])
def test_a_damaged_head_is_named_and_can_be_replaced(folder, refs, content):
    make(refs, MAIN)
    if content is None:
        (folder / "HEAD").unlink()
    else:
        (folder / "HEAD").write_bytes(content)
    with pytest.raises(Corruption, match="HEAD"):
        refs.head()
    refs.set_head(MAIN, who=WHO, why="repair")
    assert refs.head().commit == A


@pytest.mark.parametrize(
    ("there", "new"),
    [
        ("refs/heads/a", "refs/heads/a/b"),
        ("refs/heads/a/b", "refs/heads/a"),
        ("refs/heads/Main", "refs/heads/main"),
        ("refs/heads/Team/x", "refs/heads/team/y"),
        ("refs/heads/A", "refs/heads/a/b"),
        ("refs/heads/caf\u00e9", "refs/heads/cafe\u0301"),
    ],
)
def test_names_that_a_file_system_cannot_hold_together(refs, there, new):
    make(refs, there)
    with pytest.raises(RefExists):
        make(refs, new)
    assert list(refs.list()) == [there]
    assert refs.reflog.read(new) == []


def test_a_name_is_free_again_below_and_above_what_went(refs):
    make(refs, "refs/heads/a/b")
    refs.delete("refs/heads/a/b", expected=A, who=WHO)
    make(refs, "refs/heads/a", B)
    refs.delete("refs/heads/a", expected=B, who=WHO)
    make(refs, "refs/heads/a/c", C)
    assert refs.list() == {"refs/heads/a/c": C}
    assert len(refs.reflog.read("refs/heads/a/c")) == 1


@pytest.mark.parametrize("stale", ["a", "a/b/c"])
def test_logs_left_by_a_killed_delete_are_no_obstacle(folder, refs, stale):
    path = folder / "logs/refs/heads" / stale
    path.parent.mkdir(parents=True)
    path.write_text("")
    make(refs, "refs/heads/a/b")
    assert len(refs.reflog.read("refs/heads/a/b")) == 1


def test_a_remote_has_neither_lock_nor_log():
    refs = RefStore(MemoryByteStore())
    make(refs, MAIN)
    with refs.locked():
        refs.update(MAIN, B, expected=A, who=WHO, why="push")
    assert refs.list("refs/heads") == {MAIN: B}


def test_steps_under_the_lock_keep_others_out(folder, refs):
    other = open_refs(folder, timeout_s=0.05)
    with refs.locked():
        make(refs, MAIN)
        with pytest.raises(Locked) as caught:
            other.update(MAIN, B, expected=A, who=WHO, why="x")
        assert caught.value.exit_code == 11
        with refs.locked():
            pass
        with pytest.raises(Locked):
            make(other, "refs/heads/dev")
    make(other, "refs/heads/dev")


def race(folder, value, rounds, results):
    refs = open_refs(folder, timeout_s=600)
    won = 0
    for _ in range(rounds):
        while True:
            before = refs.read(MAIN)
            after = ObjectId(digest(before + value))
            try:
                refs.update(MAIN, after, expected=before, who=WHO, why="race")
            except RefMoved:
                continue
            won += 1
            break
    results.put(won)


def test_processes_racing_on_one_branch_lose_no_move(folder, refs):
    make(refs, MAIN)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    racers = [
        context.Process(target=race, args=(folder, bytes([number]), 20, results))
        for number in range(3)
    ]
    for racer in racers:
        racer.start()
    assert [results.get() for _ in racers] == [20] * 3
    for racer in racers:
        racer.join()
    entries = refs.reflog.read(MAIN)
    assert len(entries) == 61
    # One chain: every acknowledged move starts where the one before it ended.
    assert all(later.old == earlier.new for later, earlier in itertools.pairwise(entries))
    assert entries[0].new == refs.read(MAIN)
    assert len(refs.reflog.read("HEAD")) == 61


BAD_NAMES = [
    "", "main", "refs/heads", "refs/heads/", "refs//a", "refs/heads/a//b", "/refs/heads/a",
    "refs/heads/.a", "refs/heads/a.lock", "refs/heads/a.lock/b", "refs/heads/a..b",
    "refs/heads/a b", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b", "refs/heads/a?",
    "refs/heads/a*", "refs/heads/[a", "refs/heads/a\\b", "refs/heads/a\x7f", "refs/heads/a\n",
    "refs/heads/a\0", "refs/heads/a@{1}", "refs/heads/a.", "refs/heads/-a", "refs/heads/../../x",
    "refs/heads/" + 250 * "a", "refs/heads/" + 600 * "a/" + "a", "refs/heads/\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_names_reach_no_store(refs, name):
    for attempt in (
        lambda: make(refs, name),
        lambda: refs.read(name),
        lambda: check_ref_name(name),
    ):
        with pytest.raises(InvalidRefName) as caught:
            attempt()
    assert caught.value.exit_code == 2
    assert refs.names() == []


PIECES = ["a", "B", "-", ".", "..", "/", "@", "{", "@{", ".lock", "~", "^", ":", "*", "[", "?", "é"]
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(
    lambda parts: "refs/heads/" + "".join(parts)
)


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")
@given(st.lists(NAMES, min_size=1, max_size=4))
def test_the_rules_are_gits_and_no_leading_dash(names):
    for name in names:
        git = subprocess.run(["git", "check-ref-format", name], check=False).returncode == 0
        expected = git and not name.startswith("refs/heads/-")
        try:
            check_ref_name(name)
        except InvalidRefName:
            assert not expected, name
        else:
            assert expected, name


def test_short_names():
    assert branch_ref("a/b") == branch_ref("refs/heads/a/b") == "refs/heads/a/b"
    assert tag_ref("v1") == "refs/tags/v1"
    assert short_name("refs/heads/a/b") == "a/b"
    assert short_name("refs/remotes/origin/main") == "origin/main"
    assert short_name("refs/imports/x") == "imports/x"
    for name in ("HEAD", "@", "-d"):
        with pytest.raises(InvalidRefName):
            branch_ref(name)


@given(st.text(max_size=20), st.text(max_size=20), st.integers(-(2**40), 2**40))
def test_any_author_and_reason_are_one_line_of_the_log(author, why, when):
    entry = ReflogEntry(A, None, Signature(author, when, -570), why)
    line = entry.encode().decode()
    assert line.endswith("\n")
    assert line.count("\n") == line.count("\t") == 1
    again = parse_line(line[:-1])
    assert again is not None
    assert (again.old, again.new, again.who.time, again.who.utc_offset) == (A, None, when, -570)
    assert again.encode().decode() == line


def test_a_torn_last_line_is_left_out_and_then_replaced(folder, refs):
    make(refs, MAIN)
    path = folder / "logs" / MAIN
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:70])
    assert len(refs.reflog.read(MAIN)) == 1
    refs.update(MAIN, B, expected=A, who=WHO, why="next")
    assert [entry.why for entry in refs.reflog.read(MAIN)] == ["next", "test"]
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    assert [entry.why for entry in refs.reflog.read(MAIN)] == ["next", "test"]
    assert refs.reflog.damaged(MAIN) == 1
    assert list(refs.reflog.names()) == ["HEAD", MAIN]


def test_a_lock_names_its_holder_and_is_not_left_to_children(tmp_path):
    path = tmp_path / "lock"
    held = locks.acquire(path, timeout_s=0)
    with pytest.raises(Locked, match=f"process {os.getpid()} holds"):
        locks.acquire(path, timeout_s=0.02)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)  # outlive the parent's lock
        os._exit(1 if held.held else 0)
    os.close(read_end)
    held.release()
    with locks.acquire(path, timeout_s=0):
        pass
    os.close(write_end)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_that_forgets_a_lock_leaves_it_to_its_parent(tmp_path):
    path = tmp_path / "lock"
    with locks.acquire(path, timeout_s=0) as held:
        child = os.fork()
        if child == 0:
            held.release()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(Locked):
            locks.acquire(path, timeout_s=0)


def test_shared_locks_go_together_and_exclude_the_other_kind(tmp_path):
    path = tmp_path / "store.lock"
    with locks.acquire(path, shared=True, timeout_s=0):
        with locks.acquire(path, shared=True, timeout_s=0):
            pass
        with pytest.raises(Locked, match="another process"):
            locks.acquire(path, timeout_s=0)
    with locks.acquire(path, timeout_s=0), pytest.raises(Locked):
        locks.acquire(path, shared=True, timeout_s=0)


def hold_forever(path, ready):
    locks.acquire(path, timeout_s=0)
    ready.send(True)
    ready.recv()  # until it is killed, or the test is gone


def test_a_killed_holder_leaves_no_lock(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold_forever, args=(path, theirs))
    holder.start()
    assert ours.recv()
    with pytest.raises(Locked, match=f"process {holder.pid} "):
        locks.acquire(path, timeout_s=0)
    holder.kill()
    holder.join()
    with locks.acquire(path, timeout_s=0):
        pass
