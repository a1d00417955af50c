"""Whatever goes in comes out, bit for bit: any files, any tensors, any codec."""

import os
from pathlib import Path

import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.api import Repository
from mergepipe.errors import MergepipeError
from mergepipe.objects.records import Safetensors
from mergepipe.repository import config_edits
from mergepipe.repository.reflog import Signature
from tests.properties.trees import BLOCK_BYTES, Tree, read_tree, scratch, trees, write_tree

WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 60)
EXAMPLES = int(os.environ.get("EXAMPLES", "20"))
"""Of each property; `make torture` takes more."""
CODECS = ("auto", "raw", "fast", "small")
property_test = settings(max_examples=EXAMPLES)


def repository(root: Path, codec: str = "auto") -> Repository:
    Repository.init(root, block_size=BLOCK_BYTES, who=WHO).close()
    settings_file = root / ".mergepipe" / "config.toml"
    text = config_edits.with_value(settings_file.read_text(), "store.codec", codec)
    settings_file.write_text(text)
    return Repository.open(root, who=WHO)


@property_test
@given(trees(), trees(), st.sampled_from(CODECS))
def test_files_come_back_bit_for_bit(first: Tree, second: Tree, codec: str) -> None:
    with scratch() as root, repository(root / "repo", codec) as repo:
        write_tree(first, root / "first")
        write_tree(second, root / "second")
        made = repo.commit(root / "first", branch="main", message="one")
        assert made.raw_bytes == sum(len(data) for data, _ in first.values())
        repo.commit(root / "second", branch="main", base="main", message="two")
        again = repo.commit(root / "first", branch="other", message="same content")
        assert again.new_blocks == 0
        assert again.snapshot == made.snapshot
        assert repo.commit(root / "first", branch="other").unchanged
        repo.checkout("main", to=root / "out-second")
        repo.checkout(made.commit.hex(), to=root / "out-first")
        assert read_tree(root / "out-second") == second
        assert read_tree(root / "out-first") == first


@property_test
@given(trees(), st.sampled_from(CODECS))
def test_the_same_files_make_the_same_snapshot_in_every_repository(tree: Tree, codec: str) -> None:
    with scratch() as root:
        write_tree(tree, root / "files")
        snapshots = []
        for name, kind in (("a", "raw"), ("b", codec)):
            with repository(root / name, kind) as repo:
                snapshots.append(repo.commit(root / "files", branch="main").snapshot)
        assert snapshots[0] == snapshots[1]


@property_test
@given(trees())
def test_a_lone_tensor_holds_what_the_file_held(tree: Tree) -> None:
    with scratch() as root, repository(root / "repo") as repo:
        write_tree(tree, root / "files")
        repo.commit(root / "files", branch="main")
        files = repo.snapshot_of("main").files
        everywhere = [
            entry.name
            for file in files
            if isinstance(file.content, Safetensors)
            for entry in file.content.tensors
        ]
        for number, file in enumerate(files):
            if not isinstance(file.content, Safetensors):
                continue
            held = dict(safetensors.deserialize(tree[file.path][0]))
            names = [entry.name for entry in file.content.tensors]
            assert set(names) == set(held)
            once = [name for name in names if everywhere.count(name) == 1]
            if not once:
                continue
            out = root / "chosen" / f"{number}.safetensors"
            written = repo.checkout("main", to=out, tensors=once)
            chosen = dict(safetensors.deserialize(written.read_bytes()))
            assert chosen == {name: held[name] for name in once}


@property_test
@given(trees(), st.data())
def test_a_damaged_tensor_file_is_refused_or_kept_as_it_is(tree: Tree, data: st.DataObject) -> None:
    """A tensor file cut short or changed anywhere in its header: a typed error, or the same bytes.

    After an error the repository is as it was, and nothing stays in `tmp/`.
    """
    path = data.draw(st.sampled_from(sorted(tree)))
    content, executable = tree[path]
    if not content:
        return
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:where]
    else:
        changed = data.draw(st.integers(0, 255))
        content = content[:where] + bytes([changed]) + content[where + 1 :]
    damaged = {**tree, path: (content, executable)}
    with scratch() as root, repository(root / "repo") as repo:
        write_tree(damaged, root / "files")
        try:
            repo.commit(root / "files", branch="main")
        except MergepipeError as error:
            assert path.endswith(".safetensors")
            assert error.exit_code == 12
            assert repo.refs.list() == {}
            assert not list((root / "repo/.mergepipe/packs").iterdir())
        else:
            repo.checkout("main", to=root / "out")
            assert read_tree(root / "out") == damaged
        repo.close()
        assert not list((root / "repo/.mergepipe/tmp").iterdir())
