"""Profiles, merges and manifests made again, as docs/format-merge.md has them."""

from hashlib import blake2b

import numpy as np

from .codecs import packed
from .repository import digest, identity

WORD32, WORD64 = (1 << 32) - 1, (1 << 64) - 1


def values(raw, dtype):
    """float32 values of BF16, F16 and F32."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[dtype]).astype("<f4")


def rounded(floats, dtype):
    """Bytes of float32 values, rounded to nearest even."""
    if dtype != "BF16":
        return floats.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()
    bits = floats.astype("<f4").view("<u4").astype(np.int64)
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2").tobytes()


def real(bits):
    return float(np.uint32(bits).view("<f4"))


def block_facts(d):
    """(energy, largest, threshold, magnitude, kept, trits) of a block's differences."""
    bits = d.view("<u4") & 0x7FFFFFFF
    keys = bits >> 16
    wanted = int(0.35 * len(d))
    least, kept, total, energy = 0, 0, 0.0, 0.0
    for key in np.unique(keys)[::-1]:
        here = bits[keys == key]
        exact = int((here & 0xFFFF == 0).sum())
        inexact = len(here) - exact
        low, middle = real(int(key) << 16), real(int(key) << 16 | 0x8000)
        energy += low * low * exact + middle * middle * inexact
        if least or key == 0:
            continue
        if kept and kept + len(here) - wanted >= wanted - kept:
            least = int(key) + 1
            continue
        kept += len(here)
        total += low * exact + middle * inexact
        if kept >= wanted:
            least = int(key)
    least = max(least, 1)
    trits = np.where(keys >= least, np.where(d.view("<u4") >> 31, 1, 2), 0)
    magnitude = float(np.float32(total / kept)) if kept else 0.0
    return energy, real(int(bits.max())), real(least << 16), magnitude, kept, trits


def profile(repo, snapshot, base):
    """The fields of the profile of two snapshots."""
    under = repo.named(base)
    tensors = []
    for name, tensor in sorted(repo.named(snapshot).items(), key=lambda item: item[0].encode()):
        if name not in under or under[name] == tensor:
            continue
        dtype, shape, size, blocks, raw = repo.tensor(tensor)
        base_dtype, base_shape, base_size, base_blocks, base_raw = repo.tensor(under[name])
        same = (base_dtype, base_shape[1:], base_size) == (dtype, shape[1:], size)
        if dtype in ("BF16", "F16", "F32") and same and len(shape) == len(base_shape):
            columns = tensor_columns(dtype, size, blocks, raw, base_blocks, base_raw)
            tensors.append([name, tensor, under[name], *columns])
    return [snapshot, base, tensors]


def tensor_columns(dtype, size, blocks, raw, base_blocks, base_raw):
    width = 4 if dtype == "F32" else 2
    columns: list[list] = [[] for _ in range(7)]
    energies, changed, largest, thresholds, magnitudes, kept, coarse = columns
    trits: list = []
    sizes, complete = [], width == 2
    for number, block in enumerate(blocks):
        x, b = (one[number * size : (number + 1) * size] for one in (raw, base_raw))
        paired = len(x) == len(b)
        facts = (0.0, 0.0, 0.0, 0.0, 0, np.zeros(len(x) // width, np.int64))
        moved, name = 0, bytes(32)
        d = np.zeros(len(x) // width, "<f4")
        if not paired:
            facts, complete = (np.nan, *facts[1:]), False
        elif block != base_blocks[number]:
            with np.errstate(invalid="ignore"):
                d = values(x, dtype) - values(b, dtype)
            d = np.where(np.isfinite(d), d, np.float32(0))
            facts = block_facts(d)
            kind = f"<u{width}"
            moved = int((np.frombuffer(x, kind) != np.frombuffer(b, kind)).sum())
            name = digest(packed(facts[5]).tobytes())
        for column, fact in zip(
            (energies, largest, thresholds, magnitudes, kept, trits), facts, strict=True
        ):
            column.append(fact)
        changed.append(moved)
        coarse.append(name)
        sizes.append(d.view("<u4") & 0x7FFFFFFF)
    distinct, counts = np.unique(np.concatenate(sizes), return_counts=True)
    every = np.concatenate(trits)
    samples = min(len(every), 4096)
    signs = every[(2 * np.arange(samples) + 1) * len(every) // (2 * samples)]
    padded = np.zeros(-(-samples // 5) * 5, np.int64)
    padded[:samples] = signs
    steps = np.diff(distinct, prepend=np.uint32(0)).astype("<u4").tobytes()
    return (
        np.array(energies, "<f8").tobytes(),
        np.array(changed, "<u4").tobytes(),
        *(np.array(one, "<f4").tobytes() for one in (largest, thresholds, magnitudes)),
        np.array(kept, "<u4").tobytes(),
        b"".join(coarse),
        steps if complete else b"",
        counts.astype("<u8").tobytes() if complete else b"",
        (padded.reshape(-1, 5) * 3 ** np.arange(5)).sum(1).astype(np.uint8).tobytes(),
    )


def splitmix(x):
    x = x + 0x9E3779B97F4A7C15 & WORD64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD64
    return x ^ x >> 31


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD32
    x ^= x >> 15
    x = x * 0x846CA68B & WORD32
    return x ^ x >> 16


def mask(seed, name, place, start, length, density):
    """Which elements stay."""
    key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
    state = splitmix(splitmix(splitmix(seed & WORD64) ^ key) ^ place)
    words = state & WORD32, state >> 32, splitmix(state) & WORD32
    limit = round(density * (1 << 32))
    return np.array(
        [
            mix(mix(i & WORD32 ^ words[0]) ^ words[1] ^ mix(i >> 32 ^ words[2])) < limit
            for i in range(start, start + length)
        ]
    )


class Plan:
    """A plan whose inputs are stored tensors of the grid of `like`."""

    def __init__(self, repo, name):
        self.repo = repo
        fields = repo.object(name, "plan 3")
        self.seed, self.layout, self.base, self.models, self.profiles, self.lines = fields

    def made(self, line):
        """The id of a line's tensor."""
        _, name, like, dtype, method, _, base, inputs, copied, depths, numbers, experts = line
        if copied is not None:
            return copied
        like_dtype, shape, size, blocks, _raw = self.repo.tensor(like)
        assert like_dtype == dtype
        under = None if base is None else self.repo.tensor(base[1])
        tensors = [self.repo.tensor(one[1]) for one in inputs]
        out = []
        for number in range(len(blocks)):
            span = slice(number * size, (number + 1) * size)
            b = None if under is None else under[4][span]
            terms = []
            for place, tensor in enumerate(tensors):
                depth, own = depths[place][number], dict(zip(NUMBERS, experts[place], strict=True))
                own["place"], own["coarse"] = place, depth == 1
                if depth in (0, 3):
                    own["d"], own["x"] = None, values(b, dtype)
                elif depth == 1:
                    own["d"] = self.estimate(inputs[place], base, number, b, own)
                else:
                    own["x"] = values(tensor[4][span], tensor[0])
                    own["d"] = None if under is None else own["x"] - values(b, under[0])
                terms.append(own)
            start = number * size // (4 if dtype == "F32" else 2)
            out.append(self.block(name, method, dtype, b, terms, numbers, start))
        names = b"".join(digest(one) for one in out)
        return identity("tensor 1", [dtype, shape, size, names])

    def estimate(self, one, base, number, b, own):
        for _, _, name in self.profiles:
            for tensor in self.repo.object(name, "profile 1")[2]:
                if tensor[1:3] == [one[1], base[1]]:
                    threshold = np.frombuffer(tensor[6], "<f4")[number]
                    magnitude = float(np.frombuffer(tensor[7], "<f4")[number])
                    dtype, _, size, _, raw = self.repo.tensor(one[1])
                    d = values(raw[number * size : (number + 1) * size], dtype) - values(b, dtype)
                    sign = np.where(abs(d) >= threshold, np.sign(d), 0).astype("<f4")
                    return sign * np.float32(magnitude * own["coarse_scale"])
        raise AssertionError("no profile")

    def block(self, name, method, dtype, b, terms, numbers, start):
        elect, normalize, scale, _ = numbers
        if method == "linear":
            total = np.float32(0)
            for own in terms:
                total = total + own["x"] * np.float32(own["weight"])
            if normalize:
                total = total / np.float32(sum(own["weight"] for own in terms))
            return rounded(total, dtype)
        base = values(b, dtype)
        plus, minus, above, below = (np.zeros(len(base), "<f4") for _ in range(4))
        merged = np.zeros(len(base), "<f4")
        for own in terms:
            d = own["d"]
            if d is None:
                continue
            if not own["coarse"]:
                d = np.where(abs(d) < np.float32(own["threshold"]), np.float32(0), d)
                d = np.where(abs(d) > np.float32(own["ceiling"]), np.float32(0), d)
            if own["density"] < 1:
                stays = mask(self.seed, name, own["place"], start, len(d), own["density"])
                d = np.where(stays, d, np.float32(0))
            d = d * np.float32(own["weight"] * own["rescale"])
            weight = np.float32(own["weight"])
            plus, minus = plus + np.where(d > 0, d, 0), minus + np.where(d < 0, d, 0)
            above, below = above + np.where(d > 0, weight, 0), below + np.where(d < 0, weight, 0)
            merged = merged + d
        if elect:
            up = plus >= -minus
            merged, divisor = np.where(up, plus, minus), np.where(up, above, below)
            if normalize:
                merged = merged / np.where(divisor == 0, np.float32(1), divisor)
        elif normalize:
            total = sum(own["weight"] for own in terms)
            merged = merged / np.float32(1 if abs(total) < 1e-8 else total)
        merged = merged.astype("<f4") * np.float32(scale)
        out = np.frombuffer(rounded(base + merged, dtype), "<u4" if dtype == "F32" else "<u2")
        return np.where(merged == 0, np.frombuffer(b, out.dtype), out).tobytes()


NUMBERS = ("weight", "threshold", "coarse_scale", "density", "rescale", "ceiling")


def manifest(repo, plan_name, output):
    """The id of the manifest of a plan and its output, every tensor made again."""
    plan = Plan(repo, plan_name)
    tensors = []
    for line in plan.lines:
        inputs, copied, depths = line[7], line[8], line[9]
        _dtype, _shape, size, blocks, raw = repo.tensor(line[2])
        uses = []
        for place, one in enumerate(inputs):
            equal = 3 if one[1] == copied else 0
            depth = depths[place] if copied is None else bytes([equal]) * len(blocks)
            lengths = [len(raw[n * size : (n + 1) * size]) for n in range(len(blocks))]
            used = sum(length for length, own in zip(lengths, depth, strict=True) if own)
            uses.append([one[0], *(depth.count(one) for one in (2, 1, 0, 3)), used])
        tensors.append([line[1], plan.made(line), uses])
    method = ", ".join(dict.fromkeys(line[4] for line in plan.lines))
    fields = [plan_name, method, plan.seed, plan.layout, plan.base, plan.models, output, tensors]
    return identity("manifest 2", fields)
