"""Buffers that only some models of a stage have: no part of its result."""

from collections.abc import Mapping
from dataclasses import replace

from mergepipe.formats.buffers import is_buffer
from mergepipe.planner.mergekit.inventory import Inventory
from mergepipe.planner.mergekit.schema import ModelName
from mergepipe.plans.left_out import Kind, LeftOut

Inventories = Mapping[ModelName, Inventory]


def without_stray_buffers(models: Inventories) -> tuple[Inventories, tuple[LeftOut, ...]]:
    """Models without the buffers that another model lacks, and what that leaves out of them.

    Layers may have moved, so a buffer is known by its key in its layer.
    """
    whole = [inventory for inventory in models.values() if not inventory.changes_only]
    shared = set.intersection(*(_buffers(inventory) for inventory in whole)) if whole else set()
    kept: dict[ModelName, Inventory] = {}
    left_out: list[LeftOut] = []
    for name, model in models.items():
        stray = [
            tensor
            for tensor, held in model.tensors.items()
            if is_buffer(tensor, held.shape) and _key(model, tensor) not in shared
        ]
        kept[name] = model
        if stray and not model.changes_only:
            gone = set(stray)
            tensors = {key: held for key, held in model.tensors.items() if key not in gone}
            kept[name] = replace(model, tensors=tensors)
            left_out.append(LeftOut(Kind.BUFFERS, model.label, tuple(stray)))
    return kept, tuple(left_out)


def _buffers(model: Inventory) -> set[tuple[str, str]]:
    return {
        _key(model, name) for name, held in model.tensors.items() if is_buffer(name, held.shape)
    }


def _key(model: Inventory, name: str) -> tuple[str, str]:
    spot = model.architecture.spots[name]
    return spot.module, spot.key
