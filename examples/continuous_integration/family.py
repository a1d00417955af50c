"""A family of models small enough for thirty days in a minute, whose losses are real.

A model is a few linear layers. A task is a teacher, the base moved in every layer, and inputs that
fill a part of the space; neighbouring tasks share a little of it, so experts do interfere. Training
is gradient descent towards the teacher on the task's inputs; the loss of a model on a task is its
mean squared error there, as a share of the base's.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

LAYERS, SIZE, INPUTS, SHARED = 6, 256, 48, 4
TASKS = ("law", "math", "code", "chat", "bio")
_RATE = 0.3

Weights = Mapping[str, npt.NDArray[np.float32]]


def base() -> Weights:
    """The model that all are trained from."""
    source = np.random.default_rng(0)
    return {
        f"model.layers.{layer}.linear.weight": source.normal(0, 0.05, (SIZE, SIZE)).astype(
            np.float32
        )
        for layer in range(LAYERS)
    }


class Task:
    """Something to learn: inputs, and the teacher that answers them."""

    def __init__(self, name: str) -> None:
        source = np.random.default_rng(1 + TASKS.index(name))
        space = np.linalg.qr(np.random.default_rng(99).normal(0, 1, (SIZE, SIZE)))[0]
        space = (space * np.sqrt(SIZE)).astype(np.float32)
        first = INPUTS * TASKS.index(name)
        self.name = name
        self._teacher = {}
        self._inputs = {}
        for layer, weight in base().items():
            self._teacher[layer] = weight + source.normal(0, 0.02, weight.shape).astype(np.float32)
            self._inputs[layer] = space[:, first : first + INPUTS + SHARED]
        self._start = self._error(base())

    def loss(self, model: Weights) -> float:
        """0 for the teacher, 1 for the base."""
        return self._error(model) / self._start

    def train(self, model: Weights) -> Weights:
        """A day of training."""
        tuned = {}
        for layer, weight in model.items():
            inputs = self._inputs[layer]
            missing = (self._teacher[layer] - weight) @ inputs
            tuned[layer] = weight + _RATE / SIZE * (missing @ inputs.T)
        return tuned

    def _error(self, model: Weights) -> float:
        errors = [
            float(np.square((self._teacher[name] - weight) @ self._inputs[name]).mean())
            for name, weight in model.items()
        ]
        return sum(errors) / len(errors)


def save(model: Weights, directory: Path) -> Path:
    """The model as a checkpoint in half precision."""
    directory.mkdir(parents=True, exist_ok=True)
    halves = {name: weight.astype(np.float16) for name, weight in model.items()}
    save_file(halves, directory / "model.safetensors", {"format": "pt"})
    return directory
