"""What a planned line takes from models, through all lines under it: a row for each leaf."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from mergepipe.catalog.view import TensorView
from mergepipe.methods.terms import Scalars
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.merging import LinePlan, PlanInput
from mergepipe.objects.store import Tensors
from mergepipe.plans.cost_table import LeafNumbers, TensorCost, kept_cost, shares
from mergepipe.plans.costs import Depths, TensorCosts
from mergepipe.plans.numbers import scalars_of
from mergepipe.plans.trees import Tree


def influence(
    tree: Tree, lines: Mapping[int, LinePlan], scalars: Mapping[int, Scalars]
) -> dict[int, float]:
    """What a change of each line's tensor is multiplied by on its way to the root's, at most."""
    factors = dict.fromkeys(tree.lines, 0.0)
    factors[tree.root] = 1.0
    for number in sorted(tree.lines, reverse=True):  # who takes in a line comes after it
        line = lines[number]
        if line.base is not None and line.base.made is not None:
            factors[line.base.made] += factors[number]
        for input_, share in zip(line.inputs, shares(scalars[number]), strict=True):
            if input_.made is not None:
                factors[input_.made] += factors[number] * abs(share)
    return factors


def leaf_numbers(
    tree: Tree,
    lines: Sequence[LinePlan],
    views: Mapping[tuple[int, int], TensorView | None],
    aligned: Sequence[bool],
    sizes: Sequence[int],
) -> list[LeafNumbers]:
    """What the costs of planned leaves are told by; views by line and place."""
    scalars = {number: scalars_of(lines[number]) for number in tree.lines}
    factors = influence(tree, {number: lines[number] for number in tree.lines}, scalars)
    told = []
    for row, leaf in enumerate(tree.leaves):
        line_scalars = scalars[leaf.line]
        share = shares(line_scalars)[leaf.place] * factors[leaf.line]
        view = views[leaf.line, leaf.place] if aligned[row] else None
        numbers = line_scalars.experts[leaf.place]
        if leaf.line != tree.root:
            numbers = replace(numbers, weight=numbers.weight * factors[leaf.line])
        told.append(LeafNumbers(leaf.input.model, view, numbers, share, sizes[row]))
    return told


def root_depths(tree: Tree, lines: Sequence[LinePlan], costs: TensorCosts) -> Depths:
    """The depths of a tree's leaves, by the blocks of its root.

    Those of a line that is cut otherwise are all read.
    """
    depths = costs.full
    for row, leaf in enumerate(tree.leaves):
        leaf_depths = np.frombuffer(lines[leaf.line].depths[leaf.place], np.uint8)
        if len(leaf_depths) == depths.shape[1]:
            depths[row] = leaf_depths
    return depths


def copied_cost(line: LinePlan, tensors: Tensors) -> TensorCost:
    """The cost of a line that is a stored tensor, as it stands: nothing is read."""
    inputs = line.inputs
    stored = [None if term.stored is None else tensors[term.stored] for term in inputs]
    blocks = [0 if tensor is None else len(tensor.block_ids()) for tensor in stored]
    sizes = [raw_bytes(term, tensors) for term in inputs]
    return kept_cost(line.name, [term.model for term in inputs], sizes, blocks)


def raw_bytes(one: PlanInput, tensors: Tensors) -> int:
    """Size of what an input takes from its model, as raw weights."""
    stored = [] if one.stored is None else [one.stored]
    if one.factors is not None:
        stored += [one.factors.up, one.factors.down]
    return sum(tensor_bytes(tensors[identity]) for identity in stored)
