"""Parsers of text: what users type, and files of a repository that are read a line at a time."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.errors import MergepipeError
from mergepipe.formats import ignore
from mergepipe.objects.paths import check_path
from mergepipe.planner.mergekit.document import plain as plain_values
from mergepipe.planner.mergekit.document import read_documents
from mergepipe.planner.mergekit.reading import read_recipe
from mergepipe.repository import (
    config,
    config_edits,
    notes,
    pruned,
    reflog,
    refnames,
    revisions,
    tombstones,
)
from mergepipe.repository.dates import Clock, parse_moment
from mergepipe.repository.durations import parse_duration
from mergepipe.sizes import parse_size
from mergepipe.transfer.credentials import read_servers, read_tokens
from mergepipe.transfer.remote_refs import parse_ref
from mergepipe.transfer.serving.tokens import Tokens
from mergepipe.transfer.urls import parse_url

from .parser import Feed, Parser, plain, text

_ID = b"0123456789abcdef" * 4
_RECIPE = b"""\
merge_method: ties
base_model: base
slices:
  - sources:
      - model: a
        layer_range: [0, 16]
        parameters: {weight: [0.1, 0.5, 1], density: 0.4}
      - model: b
        layer_range: [0, 16]
parameters: {normalize: true, int8_mask: no}
dtype: bfloat16
tokenizer: {source: union, tokens: {"<s>": {source: base, force: true}}}
budget: 10%
"""
_MODELS = b"""\
merge_method: linear
models:
  - model: ours
    parameters:
      weight: &w [{filter: mlp, value: 0.5}, {value: 1}]
  - {model: other, parameters: {weight: *w}}
"""
_CONFIG = b"""\
format = 1
[core]
threads = 4
[store]
block_size = "4MiB"
codec = "small"
[remote.origin]
url = "https://example.org/model"
[gc]
grace = "2 weeks"
"""


def _config(data: bytes) -> None:
    read = text(data)
    config.parse(read)
    for key, value in (
        ("store.codec", "raw"),
        ("remote.x.url", "/somewhere"),
        ("core.threads", "3"),
    ):
        config.parse(config_edits.with_value(read, key, value))
    config.parse(config_edits.without_value(read, "store.codec"))


def _ignore(data: bytes) -> None:
    for pattern in ignore.parse(data)[:20]:
        for path in (b"a", b"models/deep/er/weights.bin", b"x" * 200):
            pattern.matches(path, path.rpartition(b"/")[2], False)


def _revision(data: bytes) -> None:
    with contextlib.suppress(MergepipeError):
        revisions.parse_range(text(data))
    revisions.parse(text(data))


def _stored(key: str, read: Callable[[ByteStore], object]) -> Feed:
    def feed(data: bytes) -> object:
        store = MemoryByteStore()
        store.put(key, data)
        return read(store)

    return feed


def _tokens_file(folder: Path) -> tuple[Feed, list[bytes]]:
    path = folder / "tokens"
    path.touch(mode=0o600)

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        read_servers(path)
        read_tokens(path)

    return feed, [b'"https://example.org:443" = "secret"\norigin = "x"\n']


def _recipe(data: bytes) -> None:
    for document in read_documents(data):
        plain_values(document)
    read_recipe(data)


PARSERS = (
    plain("a recipe", _recipe, _RECIPE, _MODELS),
    plain("a config", _config, _CONFIG),
    plain(".mpignore", _ignore, b"*.bin\n!keep.bin\n/a/**/b[!a-z]?\nfolder/\n\\#x  \n"),
    plain(
        "a revision",
        _revision,
        b"main@{3}~2^1",
        b"main",
        b"origin/main@{2 days ago}",
        _ID[:9],
    ),
    plain("a name of a ref", lambda data: refnames.check_ref_name(text(data)), b"refs/heads/a/b"),
    plain("a ref", lambda data: parse_ref("refs/heads/main", data), _ID + b"\n"),
    plain(
        "a line of a reflog",
        lambda data: reflog.parse_line(text(data)),
        b"%b %b A <a@b> 1700000000 +0100\tcommit: x" % (b"0" * 64, _ID),
        reflog.ReflogEntry(
            None, None, reflog.Signature("A <a@b>", 1_700_000_000, 60), "why"
        ).encode(),
    ),
    plain(
        "a moment",
        lambda data: parse_moment(text(data), Clock(1_700_000_000, 60)),
        b"3.days.ago",
        b"2026-11-22T06:04:13+01:00",
        b"1700000000",
        b"yesterday",
    ),
    plain("a duration", lambda data: parse_duration(text(data)), b"2 weeks", b"3d", b"never"),
    plain("a size", lambda data: parse_size(text(data)), b"4MiB", b"1.5 GB", b"12"),
    plain("a path", lambda data: check_path(text(data)), b"nested/config.json"),
    plain(
        "an address of a remote",
        lambda data: parse_url(text(data), Path("/")),
        b"https://example.org:8443/a/b",
        b"ssh://me@host:22/path",
        b"me@host:path",
        b"s3://bucket/a",
        b"hf://org/model",
        b"file:///tmp/x",
        b"../there",
    ),
    plain(
        "tokens of a server",
        lambda data: Tokens.parse(text(data).splitlines(), "x"),
        b"read %b\nwrite ci %b # c\n" % (_ID, _ID[1:]),
    ),
    Parser("tokens of a user", _tokens_file),
    plain(
        "notes",
        notes.parse,
        notes.encode({"loss": notes.Remark("1.5", 1_700_000_000, "A <a@b>")}),
    ),
    plain(
        "the list of the pruned",
        _stored(pruned.KEY, pruned.read_lines),
        b"%b 1700000000\n" % _ID,
    ),
    plain(
        "tombstones",
        _stored(tombstones.KEY, tombstones.read_tombstones),
        b"%b %b 1700000000 A <a@b>\tleaked\n" % (_ID, _ID),
    ),
)
