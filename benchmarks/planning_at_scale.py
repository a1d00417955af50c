"""Planning a merge of models as large as asked for, without their weights.

python benchmarks/planning_at_scale.py [--layers 80] [--experts 20] [--budget raw:10%] [--keep DIR]

A repository of a base and its fine-tunes is made with all of their metadata: tensors, snapshots,
profiles, and packs of their full length that are holes but for headers and footers, so that the
index knows every record. The shapes are Llama 70B's (80 layers: 131,000 blocks of 1 MiB a model).
Then `mp plan` runs as a process, and another lays the work of the plan out and pickles it, as the
coordinator of a merge by other processes does. Disk: some 140 MB for each expert of 70B.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from measure import Sample, run

from mergepipe.api import Repository
from mergepipe.catalog.view import SAMPLES
from mergepipe.checkpoints.publication import publish_commit
from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import BF16, U8
from mergepipe.engine import streaming
from mergepipe.engine.batches import Batcher
from mergepipe.engine.estimates import columns_of
from mergepipe.engine.factors import FactorReader
from mergepipe.engine.laying import Laying
from mergepipe.engine.meter import Meter
from mergepipe.engine.steps import MergedTensor
from mergepipe.engine.work import Step, Work
from mergepipe.executors.segments import segmented
from mergepipe.formats.safetensors import build_header
from mergepipe.ids import ID_BYTES, NO_ID, ObjectId, PackId, block_id, digest
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Plan, Profile, TensorProfile
from mergepipe.objects.records import (
    Commit,
    FileEntry,
    Safetensors,
    Snapshot,
    Tensor,
    TensorEntry,
)
from mergepipe.packs import format as pack_format
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.format import Content, RecordKind
from mergepipe.packs.reader import pack_key
from mergepipe.packs.transaction import Transaction
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refnames import HEADS

WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 0)
BLOCK_BYTES = 1 << 20
HIDDEN, INNER, KV, VOCABULARY = 8192, 28672, 1024, 128256
_LAYER = (
    ("self_attn.q_proj", (HIDDEN, HIDDEN)),
    ("self_attn.k_proj", (KV, HIDDEN)),
    ("self_attn.v_proj", (KV, HIDDEN)),
    ("self_attn.o_proj", (HIDDEN, HIDDEN)),
    ("mlp.gate_proj", (INNER, HIDDEN)),
    ("mlp.up_proj", (INNER, HIDDEN)),
    ("mlp.down_proj", (HIDDEN, INNER)),
    ("input_layernorm", (HIDDEN,)),
    ("post_attention_layernorm", (HIDDEN,)),
)
# Of a MiB of bfloat16: packed trits, and what a residual has left.
_COARSE_BYTES, _REST_BYTES, _BASE_BYTES = 105_000, 560_000, 700_000
_DISTINCT = 2000  # magnitudes of a tensor's differences
_RECORDS_A_PACK = 512
_LINE = np.dtype(
    [
        ("magic", "S4"),
        ("kind", "u1"),
        ("codec", "u1"),
        ("version", "u1"),
        ("layer", "u1"),
        ("layers", "u1"),
        ("reserved", "V7"),
        ("raw", "<u8"),
        ("encoded", "<u8"),
        ("id", "V32"),
        ("base", "V32"),
        ("checksum", "V32"),
        ("offset", "<u8"),
    ]
)

Shapes = list[tuple[str, tuple[int, ...]]]
Ids = npt.NDArray[np.void]


def shapes_of(layers: int) -> Shapes:
    """Names and shapes of the tensors."""
    inner = [
        (f"model.layers.{layer}.{name}.weight", shape)
        for layer in range(layers)
        for name, shape in _LAYER
    ]
    ends: Shapes = [
        ("model.embed_tokens.weight", (VOCABULARY, HIDDEN)),
        ("model.norm.weight", (HIDDEN,)),
    ]
    return [*ends, *inner, ("lm_head.weight", (VOCABULARY, HIDDEN))]


def make(root: Path, layers: int, experts: int) -> int:
    """The repository; returns the blocks of one model."""
    random = np.random.default_rng(70)
    shapes = shapes_of(layers)
    counts = [-(-2 * int(np.prod(shape)) // BLOCK_BYTES) for _, shape in shapes]
    Repository.init(root, who=WHO).close()
    with Repository.open(root, who=WHO) as repo, repo.writing():
        base = _ids(random, sum(counts))
        _write_packs(root, "split", [(0, 1, _BASE_BYTES)], base, None)
        snapshot, tensors = _model(repo, shapes, counts, base)
        under = _publish(repo, "base", snapshot, None, None)
        for number in range(experts):
            own = _ids(random, sum(counts))
            ways = [(0, 2, _COARSE_BYTES), (1, 2, _REST_BYTES)]
            _write_packs(root, "residual", ways, own, base)
            model, mine = _model(repo, shapes, counts, own)
            with Transaction(repo.storage) as transaction:
                profile = transaction.add_object(
                    encode(
                        Profile(model, snapshot, _profile(random, shapes, counts, mine, tensors))
                    )
                )
                transaction.publish()
            _publish(repo, f"e{number:03}", model, under, profile)
            repo.profiles().remember(profile, model, snapshot)
            print(f"  expert {number + 1} of {experts}", file=sys.stderr, flush=True)
    return sum(counts)


def _ids(random: np.random.Generator, count: int) -> Ids:
    return np.frombuffer(random.bytes(ID_BYTES * count), f"V{ID_BYTES}")


def _write_packs(
    root: Path, codec_name: str, layers: list[tuple[int, int, int]], ids: Ids, base: Ids | None
) -> None:
    """Packs of every layer of some blocks: headers and footers, and holes."""
    codec = codec_named(codec_name)
    for layer, of, encoded in layers:
        for at in range(0, len(ids), _RECORDS_A_PACK):
            some = ids[at : at + _RECORDS_A_PACK]
            lines = np.zeros(len(some), _LINE)
            lines["magic"] = pack_format.RECORD_MAGIC
            lines["kind"], lines["codec"] = RecordKind.BLOCK, codec.tag
            lines["version"], lines["layer"], lines["layers"] = codec.version, layer, of
            lines["raw"], lines["encoded"] = BLOCK_BYTES, encoded
            lines["id"] = some
            lines["base"] = (
                np.frombuffer(NO_ID, "V32") if base is None else base[at : at + len(some)]
            )
            stored = pack_format.RECORD_HEADER_BYTES + encoded
            lines["offset"] = pack_format.PACK_HEADER_BYTES + stored * np.arange(len(some))
            footer = lines.tobytes()
            path = root / ".mergepipe" / pack_key(PackId(digest(footer)))
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.write(pack_format.pack_header(Content.BLOCKS))
                file.seek(pack_format.PACK_HEADER_BYTES + stored * len(some))
                file.write(footer + pack_format.trailer(footer))


def _model(
    repo: Repository, shapes: Shapes, counts: list[int], ids: Ids
) -> tuple[ObjectId, list[ObjectId]]:
    raw = ids.tobytes()
    tensors, at = [], 0
    with Transaction(repo.storage) as transaction:
        for (_, shape), count in zip(shapes, counts, strict=True):
            blocks = raw[ID_BYTES * at : ID_BYTES * (at + count)]
            tensors.append(
                transaction.add_object(encode(Tensor("BF16", shape, BLOCK_BYTES, blocks)))
            )
            at += count
        header = build_header([(name, BF16, shape) for name, shape in shapes], {"format": "pt"})
        block = block_id(header)
        transaction.add_block(encode_block(block, header, U8, codec_named("zstd")))
        held = transaction.add_object(
            encode(Tensor("U8", (len(header),), BLOCK_BYTES, bytes(block)))
        )
        size = len(header) + sum(2 * int(np.prod(shape)) for _, shape in shapes)
        entries = tuple(
            TensorEntry(name, tensor) for (name, _), tensor in zip(shapes, tensors, strict=True)
        )
        file = FileEntry("model.safetensors", False, size, Safetensors(held, entries))
        snapshot = transaction.add_object(encode(Snapshot((file,))))
        transaction.publish()
    return snapshot, tensors


def _profile(
    random: np.random.Generator,
    shapes: Shapes,
    counts: list[int],
    mine: list[ObjectId],
    theirs: list[ObjectId],
) -> tuple[TensorProfile, ...]:
    columns = []
    for (name, shape), blocks, tensor, base in zip(shapes, counts, mine, theirs, strict=True):
        elements = int(np.prod(shape))
        per_block = min(elements, BLOCK_BYTES // 2)
        # Concentrated, as fine-tunes are: a few blocks hold most of what changed.
        energies = random.lognormal(0, 1.5, blocks) * 1e-4
        numbers = random.multinomial(elements, np.full(_DISTINCT, 1 / _DISTINCT))
        columns.append(
            TensorProfile(
                name,
                tensor,
                base,
                energies.astype("<f8").tobytes(),
                np.full(blocks, per_block // 2, "<u4").tobytes(),
                np.full(blocks, 1e-3, "<f4").tobytes(),
                np.full(blocks, 1e-4, "<f4").tobytes(),
                np.full(blocks, 2e-4, "<f4").tobytes(),
                np.full(blocks, per_block // 5, "<u4").tobytes(),
                random.bytes(ID_BYTES * blocks),
                np.full(_DISTINCT, 1, "<u4").tobytes(),
                numbers.astype("<u8").tobytes(),
                bytes(-(-min(SAMPLES, elements) // 5)),
            )
        )
    return tuple(sorted(columns, key=lambda one: one.name.encode()))


def _publish(
    repo: Repository,
    branch: str,
    snapshot: ObjectId,
    base: ObjectId | None,
    profile: ObjectId | None,
) -> ObjectId:
    parents = () if base is None else (base,)
    commit = Commit(
        snapshot, parents, base, WHO.author, WHO.time, 0, branch, profile, trained_from=base
    )
    with Transaction(repo.storage) as transaction:
        published = publish_commit(
            transaction, repo.refs, HEADS + branch, lambda tip: commit, who=WHO, why="commit"
        )
    return published.commit


def lay_out(root: Path, plan_id: ObjectId) -> tuple[int, int, int]:
    """Make all the work of a plan and pickle it in segments, as for other processes; do none.

    Returns the segments, the steps in them, and the bytes that would be sent.
    """
    segments = steps = sent_bytes = 0
    with Repository.open(root, who=WHO) as repo:
        works = _works(repo, plan_id)
        for segment in segmented(works, lambda work: work.output_bytes):
            segments += 1
            steps += sum(len(work.steps) for work in segment.items)
            sent_bytes += len(pickle.dumps(segment))
    return segments, steps, sent_bytes


def _works(repo: Repository, plan_id: ObjectId) -> Iterator[Work]:
    plan = repo.objects.load(plan_id, Plan)
    columns = columns_of(plan.lines, plan.profiles, repo.objects)
    batcher = Batcher(repo.storage, plan_id, FactorReader(repo.storage, Meter()))
    laying = Laying(plan.lines, plan.seed, repo.objects, columns)
    waiting: list[Step] = []
    for number in range(len(plan.lines)):
        tensor = laying.lay(number)
        assert isinstance(tensor, MergedTensor)
        for step in tensor.steps():
            if isinstance(step, Step):
                waiting.append(step)
            if len(waiting) >= streaming._LOOK_AHEAD:
                yield from batcher.works(waiting)
                waiting = []
    yield from batcher.works(waiting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lay-out", type=bytes.fromhex, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--budget", default="raw:10%")
    parser.add_argument("--method", default="ties")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    if asked.make:
        print(f"{make(asked.make, asked.layers, asked.experts):,} blocks a model")
        return
    if asked.lay_out:
        print(*lay_out(asked.keep, ObjectId(asked.lay_out)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.keep or Path(temporary)
        if not (root / ".mergepipe").exists():
            root.mkdir(parents=True, exist_ok=True)
            sizes = ["--layers", str(asked.layers), "--experts", str(asked.experts)]
            # In a process of its own: the peak of a child begins at what its parent had.
            _told("make", run([sys.executable, __file__, "--make", root, *sizes]))
        mp = [sys.executable, "-m", "mergepipe", "-C", root]
        names = [f"e{number:03}" for number in range(asked.experts)]
        options = ["--base", "base", "--method", asked.method, "--budget", asked.budget]
        _told("log", run([*mp, "log", "base"]))
        _told("plan", run([*mp, "plan", *names, *options]))
        # Planned before: the same plan, and its id.
        planning = subprocess.run([*mp, "--json", "plan", *names, *options], capture_output=True)
        plan = json.loads(planning.stdout)["plan"]
        _told("lay out", run([sys.executable, __file__, "--keep", root, "--lay-out", plan]))


def _told(what: str, sample: Sample) -> None:
    print(
        f"{what:8} {sample.cpu_s:7.1f} s of processor {sample.wall_s:7.1f} s "
        f"{sample.peak_bytes / 2**20:7.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
