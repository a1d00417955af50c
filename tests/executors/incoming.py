"""Models on their way in, what commits of them make, and damage to what they made."""

import json
import shutil

from msgspec.structs import replace

from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import BF16
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.reader import pack_key
from tests.engine.merging import EXPERTS, random_model, tensors_of, write_model
from tests.executors.family import SHAPES

SMALL_BYTES = 200 << 10


def incoming(path):
    """Models on their way in: a base, two that were tuned from it, and the second changed again."""
    base = random_model(0, shapes=SHAPES)
    write_model(path / "base", base)
    for index, name in enumerate(EXPERTS[:2]):
        near = random_model(index + 1, near=base, shapes=SHAPES, share=0.8)
        write_model(path / name, near)
    shutil.copytree(path / EXPERTS[1], path / "again")
    again = random_model(9, near=near, shapes=SHAPES, share=0.1)
    write_model(path / "again", again)
    for name in ("base", *EXPERTS[:2], "again"):
        (path / name / "tokenizer.json").write_text(json.dumps(list(range(3000))))
    return path


def committed(repo, files, executor):
    """Commits of all models; what may not differ between executors."""
    made = []
    with repo.on(executor):
        for name, branch, base in (
            ("base", "base", None),
            (EXPERTS[0], EXPERTS[0], "base"),
            (EXPERTS[1], EXPERTS[1], None),
            ("again", EXPERTS[1], None),
            (EXPERTS[0], "copy", "base"),
        ):
            result = repo.commit(files / name, branch=branch, base=base, message=name)
            commit = repo.objects.commit(result.commit)
            made.append((name, commit, result.new_blocks, result.stored_bytes, result.base))
    return made


def small_segments(monkeypatch, repo):
    """Work in several segments, though the models are small."""
    whole = type(repo).workforce.fget
    monkeypatch.setattr(
        type(repo),
        "workforce",
        property(lambda one: replace(whole(one), segment_bytes=SMALL_BYTES)),
    )


def damage(repo, branch, tensor, copy=False):
    """Flip a bit of the record of a tensor's block; `copy`: the block is there once more, whole."""
    identity = tensors_of(repo, branch)["model.safetensors", tensor]
    block = repo.objects.tensor(identity).block_ids()[0]
    raw = bytes(repo.blocks.read([block])[0])
    at = repo.blocks.resolve([block])[block].layers[-1]
    if copy:
        with repo.transactions.begin() as transaction:
            transaction.add_block(encode_block(block, raw, BF16, codec_named("raw")))
            transaction.publish()
    pack = repo.local.path(pack_key(at.pack))
    data = bytearray(pack.read_bytes())
    data[at.offset + 300] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
