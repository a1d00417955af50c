"""What is larger than anything honest is refused before it is read: files of models and of users.

Limits of megabytes are lowered for a test: it is who looks at them that counts.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import torch

from mergepipe.api import Repository, identity, plan_files
from mergepipe.checkpoints import small_files
from mergepipe.dtypes import DTYPES
from mergepipe.errors import ConfigError, MalformedFile, MergepipeError, UsageError
from mergepipe.executors import choosing
from mergepipe.formats import (
    adapter_config,
    config_json,
    header_grammar,
    huggingface,
    ignore,
    safetensors,
    torch_pickle,
    wildmatch,
)
from mergepipe.formats.tree import scan_file
from mergepipe.hub import loading
from mergepipe.repository import config_values, notes
from mergepipe.transfer import urls
from mergepipe.vocabularies import (
    planning,
    stored_tokenizer,
    tokenizer_files,
    tokenizer_reading,
)
from mergepipe.vocabularies.planning import VocabularyRequest
from tests.formats.safetensors_files import file_of
from tests.formats.test_torch_pickle import state
from tests.repository.checkpoints import WHO

Lowered = tuple[ModuleType, str, int]


def _header(entry: str) -> bytes:
    return file_of(b'{"a":{%s}}' % entry.encode(), 0)


READ: dict[str, tuple[Lowered | None, Callable[[], object]]] = {
    "a config": (
        (config_json, "MAX_CONFIG_BYTES", 9),
        lambda: config_json.parse_config(b'{"a": 123}'),
    ),
    "a config of an adapter": (
        (adapter_config, "MAX_CONFIG_BYTES", 19),
        lambda: adapter_config.read_config(b'{"peft_type": "LORA"}', "x"),
    ),
    "a long pattern": (None, lambda: adapter_config._matcher("a" * 501, "x")),
    "a pattern that runs away": (None, lambda: adapter_config._matcher(".*a" * 4, "x")),
    "an index": (
        (huggingface, "MAX_INDEX_BYTES", 9),
        lambda: huggingface.parse_index(b'{"weight_map": {}}', "x"),
    ),
    "a tokenizer": (
        (tokenizer_files, "MAX_FILE_BYTES", 1),
        lambda: tokenizer_files.parse(b"{}", dict, "x"),
    ),
    "ids of a tokenizer": (
        None,
        lambda: tokenizer_reading.read_vocabulary(
            {"tokenizer.json": b'{"model": {"vocab": {"a": 16777217}}}'}, "x"
        ),
    ),
    "tokens of a tokenizer": (
        (tokenizer_reading, "MAX_ID", 1),
        lambda: tokenizer_reading.read_vocabulary({"vocab.txt": b"a\nb\nc\n"}, "x"),
    ),
    "a header": (
        (safetensors, "MAX_HEADER_BYTES", 1),
        lambda: safetensors.parse_header(file_of(b"{}", 0), 0, name="x"),
    ),
    "dimensions": (
        None,
        lambda: safetensors.parse_header(
            _header('"dtype":"F32","shape":[%s1],"data_offsets":[0,4]' % ("1," * 64)), 4, name="x"
        ),
    ),
    "a number": (
        None,
        lambda: safetensors.parse_header(
            _header('"dtype":"F32","shape":[18446744073709551616,0],"data_offsets":[0,0]'),
            0,
            name="x",
        ),
    ),
    "a product": (
        None,
        lambda: safetensors.parse_header(
            _header('"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]'),
            0,
            name="x",
        ),
    ),
    "a name of a user": (None, lambda: identity.check_author("a" * 1001)),
    "processes": (None, lambda: choosing.parse("processes:1025")),
    "padding": (
        None,
        lambda: planning._check(VocabularyRequest(multiple=planning.MAX_PADDING + 1), ()),
    ),
    "a block": (None, lambda: _refused(lambda: config_values.block_size(128 << 20))),
    "an address": (None, lambda: urls.parse_url("https://example.org/" + "a" * 4096)),
    "notes": (
        None,
        lambda: notes.encode({f"k{n}": notes.Remark("v" * 900, 0, "a") for n in range(80)}),
    ),
    "a file of notes": ((notes, "LARGEST_BYTES", 5), lambda: notes.parse(b"key\t1\t1\ta\n")),
}


def _refused(work: Callable[[], object]) -> None:
    try:
        work()
    except ValueError as error:
        raise UsageError(str(error)) from error


@pytest.mark.parametrize("what", READ)
def test_too_much_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lowered, read = READ[what]
    if lowered is not None:
        monkeypatch.setattr(*lowered)
    with pytest.raises(MergepipeError):
        read()
    if lowered is not None:
        monkeypatch.undo()
        read()


def test_sixty_four_dimensions_are_not_too_many() -> None:
    entry = '"dtype":"F32","shape":[%s1],"data_offsets":[0,4]' % ("1," * 63)
    assert len(safetensors.parse_header(_header(entry), 4, name="x").tensors[0].shape) == 64


def test_an_id_that_no_table_has_is_left_out() -> None:
    config = b'{"added_tokens_decoder": {"16777217": {"content": "<s>"}}}'
    found = tokenizer_reading.read_vocabulary(
        {"vocab.json": b'{"a": 0}', "tokenizer_config.json": config}, "x"
    )
    assert found is not None
    assert max(found.ids.values()) <= 1


def test_written_headers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [("a", DTYPES["F32"], (1,))]
    assert safetensors.build_header(tensors, {})
    monkeypatch.setattr(safetensors, "MAX_HEADER_BYTES", 8)
    with pytest.raises(MalformedFile, match="are allowed"):
        safetensors.build_header(tensors, {})


class _Beginning:
    """A file of which only the first bytes may be asked for."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_into(self, offset: int, out: memoryview) -> None:
        assert offset + len(out) <= len(self._content), "it is read on"
        out[:] = self._content[offset : offset + len(out)]


def test_a_header_is_not_read_where_it_is_too_long() -> None:
    length = safetensors.MAX_HEADER_BYTES + 1
    file = _Beginning(length.to_bytes(8, "little") + bytes(100))
    with pytest.raises(MalformedFile, match="are allowed"):
        safetensors.read_header(file, 1 << 40, "x")


def test_numbers_of_a_header_are_those_of_a_machine() -> None:
    entry = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[%d,0]}}'
    assert list(header_grammar.read_members(entry % (2**64 - 1)))
    with pytest.raises(header_grammar.GrammarError, match="64 bits"):
        list(header_grammar.read_members(entry % 2**64))


def test_a_pattern_of_thousands_of_letters_matches_nothing() -> None:
    assert wildmatch.Wildmatch(b"?" * 4096).matches(b"a" * 4096)
    assert not wildmatch.Wildmatch(b"?" * 4097).matches(b"a" * 4097)


def test_a_large_file_of_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".mpignore"
    path.write_bytes(b"*.bin\n")
    assert ignore.IgnoreRules().entering("", path).ignores("a.bin")
    monkeypatch.setattr(ignore, "_MAX_BYTES", 5)
    with pytest.raises(ConfigError, match="larger"):
        ignore.IgnoreRules().entering("", path)


def test_a_large_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state(), tmp_path / "x.bin")
    monkeypatch.setattr(torch_pickle, "_MAX_PICKLE_BYTES", 50)
    with pytest.raises(MalformedFile, match="its pickle has"):
        torch_pickle.read_pickle(scan_file(tmp_path / "x.bin"))
    monkeypatch.undo()
    monkeypatch.setattr(torch_pickle, "_MAX_DIMENSIONS", 1)
    with pytest.raises(MalformedFile, match="makes no sense"):
        torch_pickle.read_pickle(scan_file(tmp_path / "x.bin"))


def test_files_of_a_snapshot_are_not_read_where_they_are_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    repository = Repository.init(tmp_path, who=WHO)
    with repository:
        commit = repository.commit(message="first").commit
        snapshot = repository.objects.snapshot(repository.objects.commit(commit).snapshot)
        objects, blocks = repository.objects, repository.blocks
        assert small_files.read_stored_file(snapshot, "tokenizer.json", objects, blocks)
        assert stored_tokenizer.read_tokenizer(snapshot, "x", objects, blocks)
        monkeypatch.setattr(small_files, "MAX_INDEX_BYTES", 10)
        monkeypatch.setattr(stored_tokenizer, "MAX_FILE_BYTES", 10)
        with pytest.raises(MalformedFile, match="10 are allowed"):
            small_files.read_stored_file(snapshot, "tokenizer.json", objects, blocks)
        with pytest.raises(MalformedFile, match="10 are allowed"):
            stored_tokenizer.read_tokenizer(snapshot, "x", objects, blocks)
        loading._write_small_files(repository, commit.hex(), tmp_path / "out")
        assert (tmp_path / "out/tokenizer.json").exists()
        monkeypatch.setattr(loading, "_LARGEST", 10)
        loading._write_small_files(repository, commit.hex(), tmp_path / "none")
        assert not (tmp_path / "none/tokenizer.json").exists()


def test_a_large_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode({"format": 1}))
    monkeypatch.setattr(plan_files, "_MOST_BYTES", 3)
    repository = Repository.init(tmp_path / "repo", who=WHO)
    with repository, pytest.raises(MalformedFile, match="too large"):
        plan_files.read_plan(repository.planning, path)
