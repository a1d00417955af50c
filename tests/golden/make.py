"""Makes golden repositories: `python -m tests.golden.make FOLDER NAME...`. Never run by a test.

What is checked in was made once, by the release whose format it holds. Another format gets another
folder beside these, and these stay: whoever changes them breaks the promise that they test.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from mergepipe.api import Repository
from mergepipe.codecs.registry import codec_named
from mergepipe.dtypes import BF16
from mergepipe.ids import block_id
from mergepipe.packs.encoded_blocks import encode_block
from mergepipe.packs.transaction import Transaction
from mergepipe.repository.reflog import Signature

KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "I8": "i1", "I32": "<i4"}
AUTHOR = Signature("Golden <golden@example.org>", 1_700_000_000, 60)
KEPT = ("HEAD", "config.toml", "packs", "refs", "logs")


def encoded(values, dtype):
    if dtype == "BF16":
        bits = values.astype("<f4").view("<u4").astype(np.int64)
        return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2").tobytes()
    return values.astype(KINDS[dtype]).tobytes()


def write(folder, tensors, **files):
    """A model of one safetensors file: name -> (values, dtype)."""
    folder.mkdir(parents=True)
    header, data = {}, b""
    for name, (values, dtype) in tensors.items():
        raw = encoded(values, dtype)
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": span}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text('{"torch_dtype": "bfloat16", "architectures": []}\n')
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def noise(seed, *shape, scale=0.02):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def tuned(values, seed, scale=1e-3):
    """Every third row moves, by much or by little."""
    change = noise(seed, *values.shape, scale=scale)
    change[1::3] = 0
    change[2::3] *= 0.01
    return values + change


def start(path, codec):
    repo = Repository.init(path, block_size=4096, who=AUTHOR)
    repo.close()
    config = path / ".mergepipe" / "config.toml"
    config.write_text(f'format = 1\n[store]\nblock_size = "4KiB"\ncodec = "{codec}"\n')
    return Repository.open(path, who=AUTHOR)


def make_raw(path):
    with start(path, "raw") as repo:
        table = np.arange(300, dtype=np.int32)
        first = {"w": (noise(1, 48, 40), "BF16"), "empty": (np.zeros((0, 4)), "F32")}
        model = write(path / "a", {**first, "ids": (table, "I32")}, NOTES="one\n")
        repo.commit(model, branch="main", message="First")
        model = write(path / "b", {**first, "ids": (table[::-1].copy(), "I32")}, NOTES="two\n")
        repo.commit(model, branch="main", message="Second")
        repo.tag("v1", "main~1")
        repo.branch("side", "main~1")


def make_packed(path):
    with start(path, "small") as repo:
        wave = np.arange(3000) % 7
        tensors = {
            "bf16": (noise(2, 60, 50), "BF16"),
            "f16": (noise(3, 60, 50), "F16"),
            "f32": (noise(4, 40, 50), "F32"),
            "narrow": (noise(5, 3000).astype(np.float16), "F32"),
            "i8": (np.random.default_rng(6).geometric(0.3, 4000).clip(0, 90), "I8"),
            "i32": (np.cumsum(wave), "I32"),
            "wave": (wave, "I8"),
        }
        repo.commit(write(path / "a", tensors), branch="main", message="Every codec, no base")


def make_tuned(path):
    with start(path, "auto") as repo:
        base = {
            "bf16": (noise(7, 90, 64), "BF16"),
            "f16": (noise(8, 90, 64), "F16"),
            "f32": (noise(9, 60, 64), "F32"),
            "i32": (np.arange(2000), "I32"),
        }
        repo.commit(write(path / "a", base), branch="base", message="Base")
        for seed in (10, 20):
            model = {
                name: (tuned(values, seed + k), dtype) if dtype != "I32" else (values + seed, dtype)
                for k, (name, (values, dtype)) in enumerate(base.items())
            }
            model["bf16"] = (np.vstack([model["bf16"][0], noise(seed, 5, 64)]), "BF16")
            name = f"tuned-{seed}"
            repo.commit(write(path / name, model), branch=name, base="base", message=name)


def make_merged(path):
    with start(path, "auto") as repo:
        base = {"a": (noise(30, 96, 64), "BF16"), "b": (noise(31, 64), "BF16")}
        repo.commit(write(path / "a", base), branch="base", message="Base")
        for seed, name in ((40, "math"), (50, "code")):
            model = {key: (tuned(one, seed + len(key)), kind) for key, (one, kind) in base.items()}
            repo.commit(write(path / name, model), branch=name, base="base", message=name)
        experts = ["math", "code"]
        for branch, method, more in (
            ("linear", "linear", {"weights": [0.3, 0.7]}),
            ("ties", "ties", {"density": 0.2}),
            ("dare", "dare_linear", {"density": 0.5, "seed": 7}),
            ("coarse", "ties", {"budget": "raw:30%"}),
        ):
            plan = repo.plan(base="base", experts=experts, method=method, **more)
            repo.merge(plan, branch=branch)


def make_trained(path):
    """What later releases write: a commit that says what it was trained from; and bitx, by hand."""
    with start(path, "raw") as repo:
        base = noise(60, 90, 64)
        expert = tuned(base, 61)
        repo.commit(write(path / "a", {"w": (base, "BF16")}), branch="base", message="Base")
        before, after = encoded(base, "BF16"), encoded(expert, "BF16")
        with Transaction(repo.storage) as transaction:  # no setting of a repository chooses bitx
            for start_at in range(0, len(after), 4096):
                under, raw = (data[start_at : start_at + 4096] for data in (before, after))
                stored_base = (block_id(under), under)
                name = block_id(raw)
                transaction.add_block(
                    encode_block(name, raw, BF16, codec_named("bitx"), stored_base)
                )
            transaction.publish()
        model = write(path / "b", {"w": (expert, "BF16")})
        repo.commit(model, branch="tuned", base="base", message="Tuned")


def make_followed(path):
    """An expert whose next version leans on it, and is read coarsely over the base."""
    with start(path, "auto") as repo:
        config = repo.directory / "config.toml"
        config.write_text(config.read_text().replace("4KiB", "64KiB"))
    with Repository.open(path, who=AUTHOR) as repo:
        base = noise(70, 160, 192)
        repo.commit(write(path / "a", {"w": (base, "BF16")}), branch="base", message="Base")
        expert = tuned(base, 71)
        for number in range(2):
            model = write(path / f"b{number}", {"w": (expert, "BF16")})
            named = None if number else "base"
            repo.commit(model, branch="expert", base=named, message=f"Day {number}")
            expert = expert + noise(72, *expert.shape, scale=2e-5)


MAKERS = {
    "followed": make_followed,
    "raw": make_raw,
    "packed": make_packed,
    "tuned": make_tuned,
    "merged": make_merged,
    "trained": make_trained,
}


def main(folder, names):
    """Write these repositories' files; refuses what is there."""
    for name in names:
        make = MAKERS[name]
        target = folder / name
        if target.exists():
            raise SystemExit(f"{target} is there: golden data is never made again")
        work = folder / f".{name}"
        make(work)
        target.mkdir(parents=True)
        for kept in KEPT:
            source = work / ".mergepipe" / kept
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target / kept)
        shutil.rmtree(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
