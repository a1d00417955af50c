"""Codecs side by side in one run: bytes and speed, ours against the known ones.

python benchmarks/codecs.py [--data ../shared/data/tiny-llama] [--rounds 5] [--threads 1,2]

Peers: BitX + zstd-3 (ZipLLM) and zstd-1, XOR byte planes + zstd-1 (TensorDex's fast codec), plain
zstd-3; planes are taken apart and put together by compiled kernels, as ours are. Pairs: the real
ones under --data, skipped if absent, and generated dense and sparse (70% unchanged) fine-tunes.
Every round runs every codec once, in turn; speeds are MB/s of raw bytes, the median of the rounds,
with the ratio to BitX + zstd-3 and its spread (least and greatest of the rounds). With one thread,
seconds are that thread's own; with more, wall-clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from mergepipe.codecs import frames
from mergepipe.codecs.bitx import BitX
from mergepipe.codecs.coarse import coarse_head, coarse_symbols
from mergepipe.codecs.protocol import Buffer
from mergepipe.codecs.residual import Residual
from mergepipe.codecs.split import Split
from mergepipe.codecs.trits import estimate_into
from mergepipe.codecs.workspace import Workspace
from mergepipe.codecs.zstd import Zstd
from mergepipe.dtypes import BF16, U8

WORKSPACE = Workspace()

BLOCK_BYTES = 1 << 20
SMALLEST = 8192  # bytes; norms and biases are noise in a table
PAIRS = ("gentle-python", "expert-c", "expert-python", "expert-javascript", "expert-rust")


@dataclass(frozen=True, slots=True)
class Pair:
    """Blocks of a fine-tune and of its base, as bytes."""

    name: str
    blocks: list[tuple[bytes, bytes]]

    @property
    def raw_bytes(self) -> int:
        return sum(len(tuned) for tuned, _ in self.blocks)


class XorPlanes:
    """TensorDex's fast codec: XOR, low and high bytes as planes, zstd-1 each."""

    def encode(self, raw: bytes, base: bytes) -> tuple[Buffer, ...]:
        mixed = np.frombuffer(raw, np.uint8) ^ np.frombuffer(base, np.uint8)
        return tuple(frames.compress(mixed[k::2].tobytes(), 1) for k in range(2))

    def decode(self, layers: tuple[Buffer, ...], base: bytes, out: bytearray) -> None:
        mixed = np.frombuffer(out, np.uint8)
        for k in range(2):
            mixed[k::2] = np.frombuffer(frames.decompress(layers[k], len(out) // 2), np.uint8)
        np.bitwise_xor(mixed, np.frombuffer(base, np.uint8), out=mixed)


@dataclass(frozen=True, slots=True)
class Contender:
    """A codec in the table; `coarse` decodes to float32 estimates of the change."""

    name: str
    encode: Callable[[bytes, bytes], tuple[Buffer, ...]]
    decode: Callable[[tuple[Buffer, ...], bytes, bytearray], None]
    coarse: Callable[[tuple[Buffer, ...], npt.NDArray[np.float32]], None] | None = None


def _estimate(layers: tuple[Buffer, ...], out: npt.NDArray[np.float32]) -> None:
    magnitude = np.float32(coarse_head(layers[0]).magnitude)
    estimate_into(coarse_symbols(layers[0], out.size, WORKSPACE), magnitude, out)


def contenders() -> list[Contender]:
    """Ours first, the peer of all ratios second."""
    ours, split, xor = Residual(), Split(), XorPlanes()

    def with_base(codec: Residual | BitX) -> tuple:
        return (
            lambda raw, base: codec.encode(raw, base, BF16, WORKSPACE),
            lambda layers, base, out: codec.decode_into(layers, base, memoryview(out), WORKSPACE),
        )

    def alone(codec: Zstd | Split, dtype) -> tuple:
        return (
            lambda raw, base: codec.encode(raw, None, dtype, WORKSPACE),
            lambda layers, base, out: codec.decode_into(layers, None, memoryview(out), WORKSPACE),
        )

    return [
        Contender("residual", *with_base(ours), _estimate),
        Contender("BitX + zstd-3", *with_base(BitX(3))),
        Contender("BitX + zstd-1", *with_base(BitX(1))),
        Contender("XOR planes + zstd-1", xor.encode, xor.decode),
        Contender("zstd-3", *alone(Zstd(3), U8)),
        Contender("split (no base)", *alone(split, BF16)),
    ]


@dataclass(slots=True)
class Figures:
    """What one codec showed on one pair: bytes of each layer, seconds of each round."""

    layer_bytes: list[int] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    coarse_s: list[float] = field(default_factory=list)


def timed(work: Callable[[int], object], count: int, threads: int) -> float:
    """Seconds to run work(0..count - 1), each thread taking every threads-th."""
    if threads == 1:  # a thread's own time leaves out what else the machine does
        begin = time.thread_time()
        for i in range(count):
            work(i)
        return time.thread_time() - begin
    begin = time.perf_counter()
    share = lambda first: [work(i) for i in range(first, count, threads)]  # noqa: E731
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))
    return time.perf_counter() - begin


def measure(pair: Pair, rounds: int, threads: int) -> dict[str, Figures]:
    """Every codec on one pair; each block is restored and compared once."""
    results = {contender.name: Figures() for contender in contenders()}
    outs = [bytearray(len(tuned)) for tuned, _ in pair.blocks]
    estimates = [np.empty(len(tuned) // 2, np.float32) for tuned, _ in pair.blocks]
    count = len(pair.blocks)
    for round_ in range(rounds + 1):  # the first one warms up and checks
        for contender in contenders():
            encoded: list[tuple[Buffer, ...]] = [()] * count

            def encode(i: int, c: Contender = contender, to: list = encoded) -> None:
                to[i] = c.encode(*pair.blocks[i])

            def decode(i: int, c: Contender = contender, of: list = encoded) -> None:
                c.decode(of[i], pair.blocks[i][1], outs[i])

            def coarse(i: int, c: Contender = contender, of: list = encoded) -> None:
                assert c.coarse is not None
                c.coarse(of[i], estimates[i])

            seconds = [timed(work, count, threads) for work in (encode, decode)]
            if contender.coarse:
                seconds.append(timed(coarse, count, threads))
            figures = results[contender.name]
            if round_ == 0:
                assert all(bytes(o) == t for o, (t, _) in zip(outs, pair.blocks, strict=True))
                sizes = [[len(layer) for layer in layers] for layers in encoded]
                figures.layer_bytes = [sum(column) for column in zip(*sizes, strict=True)]
                continue
            for kept, value in zip(
                (figures.encode_s, figures.decode_s, figures.coarse_s), seconds, strict=False
            ):
                kept.append(value)
    return results


def report(pair: Pair, results: dict[str, Figures], threads: int) -> Iterator[str]:
    """Lines of one table."""
    peer = results["BitX + zstd-3"]
    raw = pair.raw_bytes
    yield f"\n{pair.name}: {raw / 1e6:.1f} MB in {len(pair.blocks)} blocks, {threads} thread(s)"
    yield (
        f"{'':22}{'of raw':>8}{'of BitX':>9}{'encode':>8}{'x BitX':>20}"
        f"{'decode':>8}{'x BitX':>20}{'coarse':>8}{'x BitX decode':>20}"
    )

    def speed(own: list[float], peer_s: list[float]) -> str:
        if not own:
            return ""
        ratios = [b / a for a, b in zip(own, peer_s, strict=True)]
        rate = raw / statistics.median(own) / 1e6
        middle = statistics.median(ratios)
        return f"{rate:8.0f}{f'{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})':>20}"

    for name, figures in results.items():
        size = sum(figures.layer_bytes)
        yield (
            f"{name:22}{size / raw:8.4f}{size / sum(peer.layer_bytes):9.3f}"
            f"{speed(figures.encode_s, peer.encode_s)}{speed(figures.decode_s, peer.decode_s)}"
            f"{speed(figures.coarse_s, peer.decode_s)}"
        )
    coarse, exact = results["residual"].layer_bytes
    yield f"  residual's layers: coarse {coarse / raw:.4f}, exact {exact / raw:.4f} of raw"


def blocks_of(tuned: bytes, base: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A tensor's blocks of at most 1 MiB."""
    for start in range(0, len(tuned), BLOCK_BYTES):
        stop = start + BLOCK_BYTES
        if len(tuned[start:stop]) >= SMALLEST:
            yield tuned[start:stop], base[start:stop]


def tensors(directory: Path) -> dict[str, bytes]:
    """Raw bytes of every bf16 tensor of a checkpoint."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name).contiguous()
                found[name] = tensor.view(dtype=_int16()).numpy().tobytes()
    return found


def _int16():
    import torch

    return torch.int16


def real_pairs(data: Path) -> Iterator[Pair]:
    """The pairs of tiny-llama, if it is there."""
    if not (data / "base").is_dir():
        print(f"{data} is not there: real pairs skipped")
        return
    base = tensors(data / "base")
    for name in PAIRS:
        tuned = tensors(data / name)
        cut = [pair for key in tuned for pair in blocks_of(tuned[key], base[key])]
        yield Pair(f"base -> {name}", cut)


def generated(size: int, unchanged: float) -> Pair:
    """base N(0, 0.02), tuned = base + N(0, 2e-4), both rounded to bf16."""
    random = np.random.default_rng(0)
    base = random.normal(0, 0.02, size).astype(np.float32)
    tuned = _bf16(base + random.normal(0, 2e-4, size).astype(np.float32))
    before = _bf16(base)
    tuned = np.where(random.random(size) < unchanged, before, tuned)
    kind = "sparse" if unchanged else "dense"
    return Pair(f"generated, {kind}", list(blocks_of(tuned.tobytes(), before.tobytes())))


def _bf16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tiny-llama"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--small", action="store_true", help="one real pair, little generated")
    options = parser.parse_args()
    size = 1 << (20 if options.small else 22)
    pairs = [*real_pairs(options.data), generated(size, 0), generated(size, 0.7)]
    if options.small:
        pairs = pairs[:2] + pairs[-2:]
    for threads in map(int, options.threads.split(",")):
        for pair in pairs:
            results = measure(pair, options.rounds, threads)
            for line in report(pair, results, threads):
                print(line, flush=True)


if __name__ == "__main__":
    main()
