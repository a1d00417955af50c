"""Small repositories of random models, and plans made by hand, for tests of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.dtypes import DTYPES, dtype_of
from mergepipe.engine.encoding import OutputEncoder
from mergepipe.engine.engine import Engine
from mergepipe.engine.transactions import Transactions
from mergepipe.executors.threads import ThreadExecutor
from mergepipe.formats.safetensors import build_header
from mergepipe.methods import Full, Scalars, Unit, find, merge, tensor_key
from mergepipe.methods import statistics as stats
from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import LinePlan, Plan, PlanInput, PlanProfile
from mergepipe.objects.records import Safetensors
from mergepipe.plans.numbers import scalars_of, stored_numbers
from mergepipe.repository import layout
from mergepipe.repository.config_edits import with_value
from mergepipe.repository.reflog import Signature

WHO = Signature("Tester <t@example.org>", 1_700_000_000, 60)
EXPERTS = ("e0", "e1", "e2")
SHAPES = {"embed": (300, 64), "layer.w": (128, 96), "norm": (64,), "layer.v": (96, 200)}


def to_raw(values, dtype):
    """float64 to raw bytes of a dtype, any rounding."""
    single = values.astype(np.float32)
    match dtype:
        case "BF16":
            return (single.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        case "F16":
            return values.astype(np.float16).tobytes()
        case "F32":
            return single.tobytes()
        case _:
            return values.astype(np.float64).tobytes()


def random_model(seed, *, near=None, shapes=SHAPES, share=1.0):
    """Values of every tensor: random, or near another model's, with a share of rows changed."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in shapes.items():
        if near is None:
            values[name] = rng.normal(0, 0.1, shape)
        else:
            rows = rng.random(shape[0]) < share
            change = rng.normal(0, 0.01, shape) * rows.reshape(-1, *[1] * (len(shape) - 1))
            values[name] = near[name] + change
    return values


def write_model(directory, values, dtype="BF16", *, files=1, extra=None):
    """A checkpoint directory: tensors dealt to `files` shards, config.json, and `extra` files."""
    directory.mkdir(parents=True, exist_ok=True)
    names = list(values)
    per_file = -(-len(names) // files)
    for number in range(files):
        own = names[number * per_file : (number + 1) * per_file]
        header = build_header(
            [(name, DTYPES[dtype], values[name].shape) for name in own], {"format": "pt"}
        )
        name = "model.safetensors" if files == 1 else f"model-{number + 1}-of-{files}.safetensors"
        data = b"".join(to_raw(values[name], dtype) for name in own)
        (directory / name).write_bytes(header + data)
    kind = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}[dtype]
    (directory / "config.json").write_text(f'{{\n  "torch_dtype": "{kind}",\n  "layers": 2\n}}\n')
    for path, text in (extra or {}).items():
        (directory / path).write_text(text)
    return directory


def repository(path, *, block_size=16384, codec="raw"):
    """A new repository with this block size and codec."""
    repo = Repository.init(path, block_size=block_size, who=WHO)
    repo.close()
    config = path / ".mergepipe" / "config.toml"
    config.write_text(with_value(config.read_text(), "store.codec", codec))
    repo = Repository.open(path, who=WHO)
    assert repo.config.store.codec == codec
    return repo


def three_experts(path, *, dtype="BF16", block_size=16384, codec="raw"):
    repo = repository(path / "repo", block_size=block_size, codec=codec)
    base = random_model(0)
    repo.commit(write_model(path / "base", base, dtype), branch="base", message="base")
    for index, name in enumerate(EXPERTS):
        values = random_model(index + 1, near=base, share=0.6)
        repo.commit(write_model(path / name, values, dtype), branch=name, base="base")
    return repo


def engine_of(repo, threads=2, **options):
    """An engine over a repository."""
    return Engine(
        repo.storage,
        Transactions(
            repo.local,
            repo.storage,
            repo.objects,
            repo.refs,
            repo.directory / layout.STORE_LOCK,
            repo.lock_timeout_s,
            repo.signature,
        ),
        ThreadExecutor(threads),
        OutputEncoder(repo.config.store.codec, repo.config.store.max_chain),
        **options,
    )


@dataclass
class Recipe:
    """What a test merges; `depths(tensor name, expert, block)` says how deep, None: exactly."""

    method: str
    base: str | None
    experts: Sequence
    shared: dict = field(default_factory=dict)
    own: Sequence | None = None
    dtype: str | None = None
    seed: int = 7
    depths: object = None
    profiles: list | None = None
    coarse_scale: float = 1.0


def tensors_of(repo, revision):
    """(file, name) -> tensor id of a revision."""
    return {
        (file.path, entry.name): entry.tensor
        for file in repo.snapshot_of(revision).files
        if isinstance(file.content, Safetensors)
        for entry in file.content.tensors
    }


def raw_tensor(repo, identity):
    """A stored tensor's record and bytes."""
    tensor = repo.objects.tensor(identity)
    return tensor, b"".join(repo.blocks.read(tensor.block_ids()))


def whole_unit(repo, base, experts, scalars, dtype, name, seed):
    """One tensor as one unit."""
    terms = []
    for one in experts:
        tensor, raw = raw_tensor(repo, one)
        terms.append(Full(raw, dtype_of(tensor.dtype)))
    under = None
    if base is not None:
        tensor, raw = raw_tensor(repo, base)
        under = Full(raw, dtype_of(tensor.dtype))
    like = repo.objects.tensor(base or experts[0])
    count = int(np.prod(like.shape))
    key = tensor_key(name)
    return Unit(0, count, under, tuple(terms), scalars, DTYPES[dtype], seed, key, like.shape[-1])


def plan_by_hand(repo, recipe):
    """A plan for a recipe, thresholds and norms measured over whole tensors."""
    method = find(recipe.method)
    inputs = [tensors_of(repo, one) for one in recipe.experts]
    base = None if recipe.base is None else tensors_of(repo, recipe.base)
    places = base or inputs[0]
    own = recipe.own or [{}] * len(inputs)
    settings = method.settings(recipe.shared, own)
    lines = []
    for (file, name), like in places.items():
        experts = [one[file, name] for one in inputs]
        under = None if base is None else base[file, name]
        stored = repo.objects.tensor(like)
        dtype = recipe.dtype or stored.dtype
        plain = whole_unit(
            repo, under, experts, Scalars.plain(len(experts)), dtype, name, recipe.seed
        )
        values = {need: stats.measure(need, [plain]) for need in method.needs(settings)}
        scalars = method.resolve(settings, values)
        depths = []
        for index, identity in enumerate(experts):
            expert = repo.objects.tensor(identity)
            pairs = expert.block_bytes * dtype_of(stored.dtype).bits == (
                stored.block_bytes * dtype_of(expert.dtype).bits
            )
            column = bytearray()
            for block in range(len(stored.block_ids())):
                same = (
                    under is not None
                    and expert.dtype == stored.dtype
                    and pairs
                    and expert.block_ids()[block] == stored.block_ids()[block]
                )
                depth = Depth.EQUAL if same else Depth.EXACT
                if recipe.depths is not None and not same:
                    depth = recipe.depths(name, index, block)
                column.append(depth)
            depths.append(bytes(column))
        numbers, input_numbers = stored_numbers(
            replace(
                scalars,
                experts=tuple(
                    replace(one, coarse_scale=recipe.coarse_scale) for one in scalars.experts
                ),
            )
        )
        lines.append(
            LinePlan(
                file,
                name,
                like,
                dtype,
                method.name,
                method.version,
                None if under is None else PlanInput(len(experts), under),
                tuple(PlanInput(place, one) for place, one in enumerate(experts)),
                None,
                tuple(depths),
                numbers,
                input_numbers,
            )
        )
    snapshots = [repo.commit_of(one)[1].snapshot for one in recipe.experts]
    layout_id = repo.commit_of(recipe.base or recipe.experts[0])[1].snapshot
    models = [*snapshots, *([] if recipe.base is None else [layout_id])]
    return Plan(
        recipe.seed,
        layout_id,
        None if recipe.base is None else layout_id,
        tuple(models),
        tuple(
            PlanProfile(place, len(snapshots), one)
            for place, one in enumerate(recipe.profiles or [])
            if one is not None
        ),
        tuple(lines),
    )


def merged_whole(repo, recipe, name):
    """A tensor of a recipe's exact merge, computed in one piece; its raw bytes."""
    plan = plan_by_hand(repo, recipe)
    line = next(one for one in plan.lines if one.name == name)
    under = None if line.base is None else line.base.source
    experts = [one.source for one in line.inputs]
    unit = whole_unit(repo, under, experts, scalars_of(line), line.dtype, name, recipe.seed)
    return merge(find(recipe.method), unit).tobytes()


def tensor_bytes_of(repo, revision, name):
    """The raw bytes of a revision's tensor."""
    identity = next(found for (_, own), found in tensors_of(repo, revision).items() if own == name)
    return raw_tensor(repo, identity)[1]
