import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.errors import AmbiguousRevision, Corruption, RevisionNotFound
from mergepipe.ids import ObjectId, digest
from mergepipe.repository.reflog import Reflog, ReflogEntry, Signature, settled
from mergepipe.repository.refs import ANY, RefStore
from mergepipe.repository.revisions import Ancestor, Parent, Revision, parse, resolve

from .models import DictHistory

WHO = Signature("a", 0, 0)


@pytest.fixture
def history():
    return DictHistory()


@pytest.fixture
def refs(tmp_path):
    store = MemoryByteStore()
    store.put("HEAD", b"ref: refs/heads/main\n")
    return RefStore(store, lock=tmp_path / "lock", reflog=Reflog(tmp_path / "logs"))


def put(refs, name, value, why="test"):
    refs.update(name, value, expected=ANY, who=WHO, why=why)


def identity(prefix):
    return ObjectId(bytes.fromhex(prefix.ljust(64, "0")))


@pytest.fixture
def merged(refs, history):
    """root <- left; root <- right; left, right <- merge (main); HEAD on main."""
    keys = {"root": history.add("root")}
    keys["left"] = history.add("left", [keys["root"]])
    keys["right"] = history.add("right", [keys["root"]])
    keys["merge"] = history.add("merge", [keys["left"], keys["right"]])
    put(refs, "refs/heads/main", keys["left"])
    put(refs, "refs/heads/main", keys["merge"])
    put(refs, "refs/heads/dev", keys["right"])
    put(refs, "refs/tags/v1", keys["root"])
    put(refs, "refs/remotes/origin/main", keys["left"])
    put(refs, "refs/remotes/origin/HEAD", keys["left"])
    put(refs, "refs/imports/expert", keys["right"])
    return keys


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("main", "merge"), ("HEAD", "merge"), ("@", "merge"), ("refs/heads/main", "merge"),
        ("heads/dev", "right"), ("v1", "root"), ("tags/v1", "root"), ("origin/main", "left"),
        ("origin", "left"), ("remotes/origin/main", "left"), ("imports/expert", "right"),
        ("expert", "right"), ("main^", "left"), ("main^1", "left"), ("main^2", "right"),
        ("main^0", "merge"), ("main~0", "merge"), ("main~", "left"), ("main~1", "left"),
        ("main~2", "root"), ("main^2^", "root"), ("main^2~1", "root"), ("@~1^0~1", "root"),
        ("main^^", "root"), ("main~~", "root"), ("main^{commit}^2", "right"), ("main^{}", "merge"),
        ("@{0}", "merge"), ("@{1}", "left"), ("main@{1}", "left"), ("HEAD@{1}", "left"),
        ("@@{1}", "left"), ("main@{1}^", "root"), ("refs/heads/main@{1}", "left"),
    ],
)  # fmt: skip
def test_git_grammar(refs, history, merged, text, name):
    assert resolve(text, refs, history) == merged[name]


@pytest.mark.parametrize(
    "text",
    [
        "", "^", "~1", "main~x", "main^-1", "main:file", "main..dev", "main@{x}", "main@{-1}",
        "a b", "main~9999999999", "main^{tree}", "@{", "main@", "-x", "\0", "..", "../HEAD",
        "/etc/passwd", "main^3", "v1^", "v1~1", "main~3", "main@{2}", "HEAD@{9}", "origin/nope",
        "\ud800", "main^\n",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_revision(refs, history, merged, text):
    with pytest.raises(RevisionNotFound):
        resolve(text, refs, history)


def test_the_nearest_name_is_the_hint(refs, history, merged):
    put(refs, "refs/heads/instruct", merged["root"])
    with pytest.raises(RevisionNotFound) as caught:
        resolve("instrct~2", refs, history)
    assert "instruct" in caught.value.hint


def test_nothing_is_committed_yet(refs, history):
    for text in ("HEAD", "@", "HEAD~1", "@{0}", "main"):
        with pytest.raises(RevisionNotFound):
            resolve(text, refs, history)


def test_prefixes(refs, history):
    one, two = identity("abcd1"), identity("abcd2")
    history.add("one", identity=one)
    history.add("two", identity=two)
    put(refs, "refs/heads/main", one)
    assert resolve("abcd1", refs, history) == one
    assert resolve("ABCD2", refs, history) == two
    assert resolve(one.hex(), refs, history) == one
    with pytest.raises(AmbiguousRevision) as caught:
        resolve("abcd", refs, history)
    assert one.hex()[:16] in caught.value.message
    assert two.hex()[:16] in caught.value.message
    for text in ("abc", "abcd3", "f" * 64, one.hex() + "0"):
        with pytest.raises(RevisionNotFound):
            resolve(text, refs, history)


def test_the_kind_that_is_asked_for_decides_between_prefixes(refs, history):
    commit, plan = identity("abcd1"), identity("abcd2")
    history.add("one", identity=commit)
    history.others[plan] = "plan"
    assert resolve("abcd", refs, history) == commit
    assert resolve("abcd", refs, history, kinds=["plan"]) == plan
    assert resolve(plan.hex(), refs, history, kinds=["commit", "plan"]) == plan
    with pytest.raises(AmbiguousRevision):
        resolve("abcd", refs, history, kinds=["commit", "plan"])
    for text in (plan.hex(), "abcd2"):
        with pytest.raises(RevisionNotFound, match="is a plan, not a commit"):
            resolve(text, refs, history)


def test_too_many_candidates_are_ambiguous_without_reading_them_all(refs, history):
    for number in range(150):
        history.add(str(number), identity=identity(f"abcd{number:04x}"))
    with pytest.raises(AmbiguousRevision):
        resolve("abcd", refs, history)


def test_a_tag_goes_before_a_branch_and_a_branch_before_a_prefix(refs, history):
    one, two, three = (history.add(name) for name in "abc")
    put(refs, "refs/heads/same", one)
    assert resolve("same", refs, history) == one
    put(refs, "refs/tags/same", two)
    assert resolve("same", refs, history) == two
    history.add("hex", identity=identity("beef"))
    put(refs, "refs/heads/beef", three)
    assert resolve("beef", refs, history) == three


def test_a_damaged_branch_is_no_typing_mistake(refs, history, merged):
    refs._store.put("refs/heads/dev", b"x")
    with pytest.raises(Corruption, match="refs/heads/dev"):
        resolve("dev", refs, history)


def test_a_move_that_a_crash_prevented_is_not_counted(refs, history):
    a, b, c, d = (history.add(name) for name in "abcd")
    put(refs, "refs/heads/main", a)
    put(refs, "refs/heads/main", b)
    refs.reflog.append("refs/heads/main", ReflogEntry(b, d, WHO, "crashed before the ref moved"))
    assert resolve("main@{1}", refs, history) == a
    put(refs, "refs/heads/main", c)
    assert resolve("main@{1}", refs, history) == b
    assert resolve("main@{2}", refs, history) == a
    with pytest.raises(RevisionNotFound):
        resolve("main@{3}", refs, history)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_settled_moves_are_those_that_happened(moves):
    entries, happened, current = [], [], None
    for name, crashed in moves:
        new = ObjectId(digest(name.encode()))
        if new == current:
            continue
        entry = ReflogEntry(current, new, WHO, name)
        entries.append(entry)
        if not crashed:
            happened.append(entry)
            current = new
    assert settled(entries[::-1], current) == happened[::-1]


def test_at_is_the_current_branch_and_head_has_its_own_log(refs, history, merged):
    refs.set_head("refs/heads/dev", who=WHO, why="switch")
    assert resolve("HEAD@{1}", refs, history) == merged["merge"]
    assert resolve("@{0}", refs, history) == merged["right"]
    with pytest.raises(RevisionNotFound):
        resolve("@{1}", refs, history)


STEPS = st.lists(
    st.one_of(st.builds(Ancestor, st.integers(0, 3)), st.builds(Parent, st.integers(0, 3))),
    max_size=4,
)


@given(
    st.sampled_from(["main", "a/b", "HEAD", "@", "abcd1234"]), st.none() | st.integers(0, 99), STEPS
)
def test_what_is_written_is_parsed(name, entry, steps):
    text = name if entry is None else f"{name}@{{{entry}}}"
    for step in steps:
        count = step.count if isinstance(step, Ancestor) else step.number
        text += ("~" if isinstance(step, Ancestor) else "^") + (str(count) if count != 1 else "")
    assert parse(text) == Revision(name, entry, tuple(steps))


@st.composite
def lines(draw):
    history = DictHistory()
    keys: list[ObjectId] = []
    for number in range(draw(st.integers(1, 10))):
        parents = draw(st.lists(st.sampled_from(keys), unique=True, max_size=3)) if keys else []
        keys.append(history.add(str(number), parents))
    return history, keys[-1]


@given(lines(), STEPS)
def test_steps_agree_with_a_model(case, steps):
    history, tip = case
    refs = RefStore(MemoryByteStore())
    put(refs, "refs/heads/main", tip)
    expected, text = tip, "main"
    for step in steps:
        if isinstance(step, Ancestor):
            text += f"~{step.count}"
            hops = [1] * step.count
        else:
            text += f"^{step.number}"
            hops = [step.number] if step.number else []
        for hop in hops:
            parents = history.commits[expected].parents if expected is not None else ()
            expected = parents[hop - 1] if hop <= len(parents) else None
    if expected is None:
        with pytest.raises(RevisionNotFound):
            resolve(text, refs, history)
    else:
        assert resolve(text, refs, history) == expected


@given(st.text(max_size=30))
def test_any_text_is_a_revision_or_a_clear_no(text):
    history = DictHistory()
    refs = RefStore(MemoryByteStore())
    put(refs, "refs/heads/main", history.add("a"))
    try:
        found = resolve(text, refs, history)
    except (RevisionNotFound, Corruption):
        # Corruption: this store has no HEAD.
        return
    assert found in history.commits
