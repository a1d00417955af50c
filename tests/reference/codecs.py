"""Payloads back to blocks, as docs/format-codecs.md has them."""

import struct

import numpy as np
import zstandard

PARTS = (160, 16, 4, 2, 2, 5)
MANTISSA = {1: 7, 2: 10, 3: 7}


def frame(data):
    return zstandard.ZstdDecompressor().decompress(data)


def plane(data, count):
    return np.frombuffer(data if len(data) == count else frame(data), np.uint8)


def scaled(weights, total):
    """Frequencies of `total` in proportion to the weights."""
    before = sum(weights)
    if before == 0:
        return list(weights)
    scaled = [max(1, weight * total // before) if weight else 0 for weight in weights]
    if sum(scaled) < total:
        scaled[scaled.index(max(scaled))] += total - sum(scaled)
    while sum(scaled) > total:
        scaled[scaled.index(max(scaled))] -= 1
    return scaled


def slots(frequencies, bits):
    """Of each of 2^bits slots: symbol, its frequency, its first slot. One symbol for no row."""
    if not sum(frequencies):
        frequencies = [1 << bits]
    symbols = np.repeat(np.arange(len(frequencies)), frequencies)
    starts = np.cumsum([0, *frequencies[:-1]])
    return symbols, np.array(frequencies)[symbols], starts[symbols]


def described(nibbles, bits, rows, width):
    """The frequencies of `rows` rows of `width` symbols."""
    tables, at = [], 0
    for _ in range(rows):
        row, code = [], 0
        while (nibble := nibbles[at]) != 15:
            at += 1
            if nibble == 14:
                code = nibbles[at] << 4 | nibbles[at + 1]
                at += 2
            else:
                code += nibble - 7
            octave = (code - 8) >> 3
            row.append(code if code < 16 else ((8 + (code & 7)) << octave) + (1 << octave >> 1))
        at += 1
        tables.append(scaled(row + [0] * (width - len(row)), 1 << bits))
    assert at == len(nibbles)
    return tables


def nibbles_of(data, count):
    return [data[i >> 1] >> 4 * (i & 1) & 15 for i in range(count)]


class Stream:
    """64 states, and words that are taken from their end."""

    def __init__(self, states, words):
        self.states = np.frombuffer(states, "<u4").astype(np.int64)
        self.words = list(np.frombuffer(words, "<u2"))

    def _refill(self):
        for first in range(0, 64, 16):
            low = [i for i in range(first, first + 16) if self.states[i] < 1 << 16]
            words = self.words[len(self.words) - len(low) :]
            del self.words[len(self.words) - len(low) :]
            for i, word in zip(low, words, strict=True):
                self.states[i] = self.states[i] << 16 | int(word)

    def symbols(self, rows, tables, bits):
        """One symbol for each row number; `tables` has `slots` of every row."""
        table = np.array(tables)
        out = np.empty(len(rows), np.int64)
        for at in range(0, len(rows), 64):
            slot = self.states & (1 << bits) - 1
            symbol, frequency, start = table[rows[at : at + 64], :, slot].T
            out[at : at + 64] = symbol
            self.states = frequency * (self.states >> bits) + slot - start
            self._refill()
        return out

    def bits(self, counts):
        out = np.empty(len(counts), np.int64)
        for at in range(0, len(counts), 64):
            count = counts[at : at + 64]
            out[at : at + 64] = self.states & (1 << count) - 1
            self.states >>= count
            self._refill()
        return out

    def end(self):
        assert not self.words
        assert (self.states == 1 << 16).all()


def coarse(payload, count):
    """Trits of `count` weights (and padding), classes of their chunks, magnitude, threshold."""
    layout, coded, magnitude, threshold = struct.unpack_from("<BBff", payload)
    assert layout == 1
    size = -(-count // 320) * 64
    if not coded:
        assert len(payload) == 10
        return np.zeros(size * 5, np.int64), np.zeros(size // 32, np.int64), magnitude, threshold
    shares = struct.unpack_from("<24H", payload, 10)
    (length,) = struct.unpack_from("<I", payload, 58)
    pairs = np.frombuffer(frame(payload[62 : 62 + length]), np.uint8).astype(np.int64)
    classes = np.stack([pairs // 5, pairs % 5], 1).reshape(-1)
    at = 62 + length
    stream = Stream(payload[at : at + 256], payload[at + 256 :])
    moved = [sum(byte // 3**k % 3 > 0 for k in range(5)) for byte in range(243)]
    tables = [slots([0], 12)]
    for row in range(4):
        weights = [shares[6 * row + k] * PARTS[k] for k in moved]
        tables.append(slots(scaled(weights, 4096), 12))
    packed = stream.symbols(np.repeat(classes, 32), tables, 12)
    stream.end()
    return unpacked(packed), classes, magnitude, threshold


def change(payload, before):
    """Trits after those of the version before, the anchor's id, magnitude, threshold."""
    layout, coded, magnitude, threshold = struct.unpack_from("<BBff", payload)
    assert layout == 2
    anchor = payload[10:42]
    if not coded:
        assert len(payload) == 42
        return before, anchor, magnitude, threshold
    shares = struct.unpack_from("<12H", payload, 42)
    (length,) = struct.unpack_from("<I", payload, 66)
    pairs = np.frombuffer(frame(payload[70 : 70 + length]), np.uint8).astype(np.int64)
    classes = np.repeat(np.stack([pairs // 5, pairs % 5], 1).reshape(-1), 32)
    at = 70 + length
    stream = Stream(payload[at : at + 256], payload[at + 256 :])
    tables = [slots([0], 12)]
    for row in range(4):
        appear, vanish, turn = shares[3 * row : 3 * row + 3]
        new = (65536 - appear, appear + 1 >> 1, appear + 1 >> 1)
        old = (65536 - vanish - turn, vanish, turn)
        tables += [slots(spread([new] * (5 - kind) + [old] * kind), 12) for kind in range(6)]
    places = before.reshape(-1, 5, 32).transpose(0, 2, 1).reshape(-1, 5)
    kinds = (places > 0).sum(1)
    rows = np.where(classes > 0, 6 * (classes - 1) + kinds + 1, 0)
    symbols = stream.symbols(rows, tables, 12)
    stream.end()
    order = np.argsort(places > 0, axis=1, kind="stable")
    digits = np.empty_like(places)
    np.put_along_axis(digits, order, symbols[:, None] // 3 ** np.arange(5) % 3, axis=1)
    gone, turned = (places > 0) & (digits == 1), (places > 0) & (digits == 2)
    now = np.where(places == 0, digits, np.where(gone, 0, np.where(turned, 3 - places, places)))
    trits = now.reshape(-1, 32, 5).transpose(0, 2, 1).reshape(-1)
    return trits, anchor, magnitude, threshold


def spread(places):
    """Frequencies of 2^12 for the 243 symbols of five places, each with three shares."""
    weights = []
    for symbol in range(243):
        weight = 1 << 28
        for k, place in enumerate(places):
            share = place[symbol // 3**k % 3]
            weight = max(1, weight * share >> 16) if weight and share else 0
        weights.append(weight)
    spare, total = 4096 - sum(weight > 0 for weight in weights), sum(weights)
    frequencies = [1 + weight * spare // total if weight else 0 for weight in weights]
    frequencies[frequencies.index(max(frequencies))] += 4096 - sum(frequencies)
    return frequencies


def unpacked(packed):
    places = packed.reshape(-1, 1, 32) // 3 ** np.arange(5)[None, :, None] % 3
    return places.reshape(-1)


def packed(trits):
    """Trits as coarse layers have them; padded with 0 to pairs of chunks."""
    padded = np.zeros(-(-len(trits) // 320) * 320, np.int64)
    padded[: len(trits)] = trits
    return (padded.reshape(-1, 5, 32) * 3 ** np.arange(5)[None, :, None]).sum(1).astype(np.uint8)


def steps(halves, width, pivot):
    size = halves & 0x7FFF
    exponent = size >> width
    whole = (size & (1 << width) - 1) | np.where(exponent > 0, 1 << width, 0)
    cut = np.clip(pivot - np.maximum(exponent, 1), 0, 15)
    step = np.where(size >= pivot << width, size - (pivot - 1 << width), whole >> cut)
    return np.where(halves >> 15, -step, step)


def octave(values):
    """The place of the highest bit, from 0; of 0, 0."""
    return np.array([max(int(value).bit_length() - 1, 0) for value in values], np.int64)


def residual(layers, base, length):
    payload = layers[1]
    code, flags, pivot, tail = payload[:4]
    if flags & 2:
        return payload[4:]
    width, wide = MANTISSA[code], code == 3
    count = length // (4 if wide else 2)
    used, first_length, second_length = struct.unpack_from("<III", payload, 4)
    at = 16 + (used + 1) // 2
    rows = 60 if flags & 1 else 12
    tables = described(nibbles_of(payload[16:at], used), 11, rows, 128)
    tables = [slots(row, 11) for row in (*tables, *[[0]] * (61 - rows))]
    low = len(payload) - tail - first_length - second_length
    stream = Stream(payload[at : at + 256], payload[at + 256 : low])
    trits, classes, _, _ = coarse(layers[0], count)
    under = np.frombuffer(base[: count * (4 if wide else 2)], "<u4" if wide else "<u2")
    halves = under.astype(np.int64) >> (16 if wide else 0)
    out = np.zeros(count, np.int64)
    for start in range(0, count, 5120):
        tile = slice(start, min(start + 5120, count))
        padded = min(5120, len(trits) - start)
        b, marks, size = halves[tile], trits[tile], len(halves[tile])
        kinds = np.full(padded, 60)
        kinds[:size] = np.clip(((b & 0x7FFF) >> width) - pivot, 0, 5) + 6 * (marks > 0)
        if flags & 1:
            kinds[:size] += 12 * np.repeat(classes, 160)[tile]
        symbol = stream.symbols(kinds, tables, 11)[:size]
        ranged = np.where(symbol >= 17, (symbol - 17 >> 3) + 1, 0)
        counts = np.zeros(padded, np.int64)
        counts[:size] = ranged + ((marks == 0) & (symbol > 1))
        bits = stream.bits(counts)[:size]
        far = (8 + (symbol - 17 & 7) << ranged) | bits & (1 << ranged) - 1
        distance = np.where(symbol >= 17, far, np.maximum(symbol, 1) - 1)
        down = np.where(marks == 0, bits >> ranged & 1, marks == 1)
        step = steps(b, width, pivot) + np.where(down, -distance, distance)
        lost = np.clip(width - octave(abs(step)), 0, pivot - 1)
        counts[:] = 0
        counts[:size] = np.where(symbol == 0, 0, np.where(step == 0, 16, lost))
        cut = stream.bits(counts)[:size]
        value = (abs(step) << lost | cut) + (pivot - 1 - lost << width) & 0x7FFF
        value = np.where(step == 0, cut, value | np.where(step < 0, 0x8000, 0))
        out[tile] = np.where(symbol == 0, b, value)
    stream.end()
    if wide:
        mixed = plane(payload[low : low + first_length], count).astype(np.int64)
        second = payload[low + first_length : low + first_length + second_length]
        mixed |= plane(second, count).astype(np.int64) << 8
        data = (out << 16 | (mixed ^ under.astype(np.int64) & 0xFFFF)).astype("<u4").tobytes()
    else:
        data = out.astype("<u2").tobytes()
    return data + payload[len(payload) - tail :]


def successor(layers, base, length):
    (size,) = struct.unpack_from("<I", layers[1])
    return residual([layers[1][4 : 4 + size], layers[1][4 + size :]], base, length)


def split(layers, base, length):
    (payload,) = layers
    kind, framed, used = struct.unpack_from("<BBH", payload)
    width = {1: 1, 2: 2, 3: 2, 4: 4}[kind]
    count, tail = divmod(length, width)
    lengths = struct.unpack_from(f"<{width - 1}I", payload, 4)
    at = 4 * width
    nibbles = nibbles_of(payload[at : at + (used + 1) // 2], used)
    at += (used + 1) // 2
    states = payload[at : at + 256]
    at += 256
    planes = []
    for k, size in enumerate(lengths):
        data = payload[at : at + size]
        planes.append(np.frombuffer(frame(data) if framed >> k & 1 else data, np.uint8))
        at += size
    stream = Stream(states, payload[at : len(payload) - tail])
    rows = np.zeros(-(-count // 64) * 64, np.int64)
    rows[count:] = 1
    (row,) = described(nibbles, 12, 1, 256)
    symbols = stream.symbols(rows, [slots(row, 12), slots([0], 12)], 12)[:count]
    stream.end()
    rest = [one.astype(np.int64) for one in planes]
    if kind == 1:
        data = symbols.astype(np.uint8)
    elif kind == 3:
        data = (symbols << 8 | rest[0]).astype("<u2")
    else:
        top = (rest[0] & 0x80) << 8 | symbols << 7 | rest[0] & 0x7F
        data = (
            top.astype("<u2") if kind == 2 else (top << 16 | rest[1] << 8 | rest[2]).astype("<u4")
        )
    return data.tobytes() + payload[len(payload) - tail :]


def planes(layers, base, length):
    (payload,) = layers
    mode, width = payload[0] & 15, (payload[0] >> 4) + 1
    count, tail = divmod(length, width)
    at, parts = 1 + 4 * width, []
    for size in struct.unpack_from(f"<{width}I", payload, 1):
        parts.append(plane(payload[at : at + size], count))
        at += size
    kind = f"<u{width}"
    values = np.stack(parts, 1).reshape(-1).copy().view(kind)
    if mode:
        under = np.frombuffer(base[: count * width], kind)
        if mode == 3:
            values = values ^ under
        else:
            values = values >> 1 ^ -(values & 1)
            values = values + (under if mode == 2 else ordered(under))
            values = ordered(values) if mode == 1 else values
    return values.astype(kind).tobytes() + payload[len(payload) - tail :]


def ordered(values):
    """Sign and magnitude to two's complement, and back."""
    top = values.dtype.type(1 << 8 * values.dtype.itemsize - 1)
    return np.where(values > top, top - values, values)


def bitx(layers, base, length):
    (payload,) = layers
    (size,) = struct.unpack_from("<I", payload)
    tail = length % 2
    high = np.frombuffer(frame(payload[4 : 4 + size]), np.uint8).astype("<u2")
    low = np.frombuffer(frame(payload[4 + size : len(payload) - tail]), np.uint8).astype("<u2")
    mixed = (low & 0x80) << 8 | high << 7 | low & 0x7F
    under = np.frombuffer(base[: length - tail], "<u2")
    return (mixed ^ under).astype("<u2").tobytes() + payload[len(payload) - tail :]


DECODERS = {
    0: lambda layers, base, length: layers[0],
    1: lambda layers, base, length: frame(layers[0]),
    2: bitx,
    3: residual,
    4: split,
    5: planes,
    6: planes,
    7: successor,
}
