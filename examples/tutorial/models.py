"""Three small language models for the tutorial: a base, and fine-tunes of it for two subjects.

python examples/tutorial/models.py [DIRECTORY]          makes base, code and prose there, in seconds
python examples/tutorial/models.py --evaluate MODEL...  their loss on held-out text of both subjects

A model predicts the next of 128 symbols from the last one, by an embedding, a layer of rectified
units, and a head: enough to learn something, to forget something, and to be merged.
"""

import json
import os
import sys
from pathlib import Path

for library in ("OPENBLAS", "MKL", "OMP"):  # matrices this small take longer on several threads
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

SYMBOLS, WIDTH, HIDDEN = 128, 64, 128
SUBJECTS = ("code", "prose")
RATE, BATCH = 1.0, 256
BASE_STEPS, TUNING_STEPS = 500, 120

Array = npt.NDArray[np.float32]
Model = dict[str, Array]


def text(subject: str | None, length: int, seed: int) -> npt.NDArray[np.int64]:
    """Symbols of a subject, or of none: each is followed by one of four.

    Half of the symbols have followers of their own in texts on code, the others in those on prose.
    """
    common = np.random.default_rng(1).integers(0, SYMBOLS, (SYMBOLS, 4))
    followers = common.copy()
    if subject is not None:
        half = SUBJECTS.index(subject) + np.arange(0, SYMBOLS, 2)
        followers[half] = np.random.default_rng(7).integers(0, SYMBOLS, (SYMBOLS, 4))[half]
    choices = np.random.default_rng(seed).integers(0, 4, length)
    symbols = np.zeros(length, np.int64)
    for place in range(1, length):
        symbols[place] = followers[symbols[place - 1], choices[place]]
    return symbols


def forward(model: Model, last: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Embedded symbols, active units, and log probabilities of what comes next."""
    embedded = model["embed.weight"][last]
    units = np.maximum(embedded @ model["layer.weight"], 0)
    logits = units @ model["head.weight"]
    logits -= logits.max(axis=1, keepdims=True)
    return embedded, units, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss(model: Model, symbols: npt.NDArray[np.int64]) -> float:
    """Mean surprise at the next symbol, in nats: 4.9 for one that knows nothing."""
    log_probabilities = forward(model, symbols[:-1])[2]
    return -float(log_probabilities[np.arange(symbols.size - 1), symbols[1:]].mean())


def train(model: Model, symbols: npt.NDArray[np.int64], steps: int, seed: int) -> Model:
    """Gradient descent from a model; returns another."""
    trained = {name: weights.copy() for name, weights in model.items()}
    source = np.random.default_rng(seed)
    for _ in range(steps):
        places = source.integers(0, symbols.size - 1, BATCH)
        embedded, units, log_probabilities = forward(trained, symbols[places])
        towards = np.exp(log_probabilities)
        towards[np.arange(BATCH), symbols[places + 1]] -= 1
        towards /= BATCH
        into_units = (towards @ trained["head.weight"].T) * (units > 0)
        into_embedded = into_units @ trained["layer.weight"].T
        trained["head.weight"] -= RATE * units.T @ towards
        trained["layer.weight"] -= RATE * embedded.T @ into_units
        np.add.at(trained["embed.weight"], symbols[places], -RATE * into_embedded)
    return trained


def make(directory: Path) -> None:
    """Train the three models and write them."""
    source = np.random.default_rng(0)
    shapes = {
        "embed.weight": (SYMBOLS, WIDTH),
        "layer.weight": (WIDTH, HIDDEN),
        "head.weight": (HIDDEN, SYMBOLS),
    }
    fresh = {
        name: (source.standard_normal(shape) / np.sqrt(shape[0] / 4)).astype(np.float32)
        for name, shape in shapes.items()
    }
    models = {"base": train(fresh, text(None, 40_000, 2), BASE_STEPS, 3)}
    for subject in SUBJECTS:
        models[subject] = train(models["base"], text(subject, 40_000, 4), TUNING_STEPS, 5)
    for name, model in models.items():
        (directory / name).mkdir(parents=True, exist_ok=True)
        save_file(model, directory / name / "model.safetensors")


def evaluate(paths: list[Path]) -> None:
    """Print a line of JSON for each model: its losses, and their mean."""
    held_out = {subject: text(subject, 10_000, 6) for subject in SUBJECTS}
    for path in paths:
        model = load_file(path / "model.safetensors")
        losses = {subject: round(loss(model, held_out[subject]), 3) for subject in SUBJECTS}
        mean = round(sum(losses.values()) / len(losses), 3)
        print(json.dumps({"model": path.name, **losses, "mean": mean}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--evaluate"]:
        evaluate([Path(argument) for argument in sys.argv[2:]])
    else:
        make(Path(sys.argv[1] if len(sys.argv) > 1 else "tutorial-models"))
