"""Mutated payloads for every decoder: an error or a block of the right length, and nothing else.

python benchmarks/fuzz_codecs.py [--inputs N] [--seed S] [--codec NAME]

Runs in child processes, so that a crash, a hang (10 s for one input) or an allocation beyond 4 GiB
is found and its input can be made again: `--seed S --only I`. A block that decodes from changed
bytes is compared by hash, as a repository does; how many only the hash caught is printed.
"""

import argparse
import faulthandler
import mmap
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from blake3 import blake3

from mergepipe.codecs.protocol import Codec
from mergepipe.codecs.registry import NAMES, codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, DTYPES, F16, F32, DType
from mergepipe.errors import CodecError

WORKSPACE = Workspace()

BATCH = 50_000
HANG_S = 10
_TYPES = (BF16, F16, F32, DTYPES["U8"], DTYPES["F8_E4M3"], DTYPES["I32"], DTYPES["F64"])
_BYTES = (2, 50, 700, 3201, 20_000)
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Specimen:
    """One valid encoding, from which inputs are made."""

    def __init__(
        self, codec: Codec, dtype: DType, length: int, random: np.random.Generator
    ) -> None:
        base = random.normal(0, 0.02, length // 2 + 4).astype(np.float32)
        moved = random.random(base.size) < random.choice([0.0, 0.2, 1.0])
        tuned = base + moved * random.normal(0, 2e-4, base.size).astype(np.float32)
        narrow = (lambda x: x.astype(np.float16)) if dtype is F16 else _upper
        if dtype.bits == 32:
            narrow = np.asarray
        self.codec, self.dtype = codec, dtype
        self.base = narrow(base).tobytes()[:length] if codec.needs_base else None
        raw = narrow(tuned).tobytes()[:length]
        self.length, self.id = len(raw), blake3(raw).digest()
        self.layers = [bytes(layer) for layer in codec.encode(raw, self.base, dtype, WORKSPACE)]


def _upper(x: np.ndarray) -> np.ndarray:
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def specimens(name: str | None) -> list[Specimen]:
    random = np.random.default_rng(7)
    codecs = [codec_named(n) for n in NAMES if name in (None, n)]
    return [
        Specimen(codec, dtype, length, random)
        for codec in codecs
        for dtype in _TYPES
        if codec.supports(dtype)
        for length in _BYTES
    ]


def mutate(layers: list[bytes], other: list[bytes], random: np.random.Generator) -> list[bytes]:
    """Layers with one to four changes."""
    changed = [bytearray(layer) for layer in layers]
    for _ in range(random.integers(1, 5)):
        layer = changed[random.integers(len(changed))]
        size = len(layer)
        # Headers and tables are where the damage is done: half of all changes fall there.
        reach = size if random.random() < 0.5 else min(size, 100)
        at = int(random.integers(0, reach)) if reach else 0
        match random.integers(0, 9):
            case 0 | 1 if size:
                layer[at] ^= 1 << int(random.integers(8))
            case 2 if size:
                layer[at] = int(random.integers(256))
            case 3:
                del layer[at:]
            case 4:
                layer.extend(random.bytes(int(random.integers(1, 70))))
            case 5:
                width = int(random.choice([1, 2, 4]))
                value = _EXTREMES[random.integers(len(_EXTREMES))] & ((1 << 8 * width) - 1)
                layer[at : at + width] = value.to_bytes(width, "little")
            case 6:
                layer[at : at + 40] = random.bytes(min(40, size - at))
            case 7:
                del layer[at : at + int(random.integers(1, 10))]
            case 8:
                donor = other[random.integers(len(other))]
                layer[at:] = donor[at:]
    if random.random() < 0.01:
        changed = changed[:-1] if random.random() < 0.5 else [*changed, bytearray(b"x")]
    return [bytes(layer) for layer in changed]


def attempt(specimen: Specimen, layers: list[bytes], length: int) -> str:
    """What became of one input. Any exception but CodecError is a finding."""
    base = specimen.base
    if base is not None and length != specimen.length:
        base = (base * (length // max(len(base), 1) + 1))[:length]
    out = bytearray(length)
    try:
        specimen.codec.decode_into(layers, base, memoryview(out), WORKSPACE)
    except CodecError:
        return "refused"
    if blake3(out).digest() == specimen.id:
        return "the same block"
    return "left to the hash"


def work(seed: int, first: int, count: int, codec: str | None, progress: Path) -> Counter[str]:
    """Run inputs first..first + count; writes each one's number to `progress` before trying it."""
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    found = specimens(codec)
    for specimen in found:  # kernels compiled and memory warm before the limit counts
        attempt(specimen, specimen.layers, specimen.length)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    outcomes: Counter[str] = Counter()
    with progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as now:
        for number in range(first, first + count):
            now[:8] = struct.pack("<q", number)
            random = np.random.default_rng([seed, number])
            specimen = found[random.integers(len(found))]
            other = found[random.integers(len(found))].layers
            layers = mutate(specimen.layers, other, random)
            far = random.random() < 0.03
            length = int(random.integers(1, 30_000)) if far else specimen.length
            signal.alarm(HANG_S)
            outcomes[attempt(specimen, layers, length)] += 1
            signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    if grown > 256 << 10:
        raise SystemExit(f"memory grew by {grown >> 10} MiB")
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec", choices=NAMES)
    parser.add_argument("--only", type=int, help="run this one input, in this process")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker or options.only is not None:
        first, count, path = options.worker or (options.only, 1, tempfile.mkstemp()[1])
        if options.only is not None:
            Path(path).write_bytes(bytes(8))
        outcomes = work(options.seed, int(first), int(count), options.codec, Path(path))
        print("\n".join(f"{count} {what}" for what, count in outcomes.items()))
        return
    total: Counter[str] = Counter()
    begin = time.perf_counter()
    with tempfile.NamedTemporaryFile() as progress:
        progress.write(bytes(8))
        progress.flush()
        for first in range(0, options.inputs, BATCH):
            count = min(BATCH, options.inputs - first)
            command = [sys.executable, __file__, "--seed", str(options.seed)]
            if options.codec:
                command += ["--codec", options.codec]
            command += ["--worker", str(first), str(count), progress.name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                number = struct.unpack("<q", Path(progress.name).read_bytes()[:8])[0]
                print(done.stderr, file=sys.stderr)
                raise SystemExit(f"input {number} of seed {options.seed}: exit {done.returncode}")
            for line in done.stdout.splitlines():
                number_of, what = line.split(" ", 1)
                total[what] += int(number_of)
    seconds = time.perf_counter() - begin
    print(f"{sum(total.values())} inputs in {seconds:.0f} s, no crash, hang or wild allocation")
    for what, number_of in total.most_common():
        print(f"  {number_of:>9} {what}")


if __name__ == "__main__":
    main()
