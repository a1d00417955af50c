"""Recipe to merge to plan: how deep to read each expert block under a byte budget."""

from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge, build_plan
from mergepipe.planner.explain import Explanation, costs_of, explain
from mergepipe.planner.inputs import Tensors, expand
from mergepipe.planner.lines import Line, LineInput, Made, Merge
from mergepipe.planner.planner import Catalog, Planner, Revision
from mergepipe.planner.reads import stored_encodings
from mergepipe.planner.recipe import Expert, Model, PerTensor, Recipe
from mergepipe.planner.resolution import Measure, Measured
from mergepipe.planner.table import CostTable, ExpertCost, TensorCost

__all__ = [
    "Budget",
    "Catalog",
    "CostTable",
    "Expert",
    "ExpertCost",
    "Explanation",
    "Line",
    "LineInput",
    "Made",
    "Measure",
    "Measured",
    "Merge",
    "Model",
    "PerTensor",
    "PlannedMerge",
    "Planner",
    "Recipe",
    "Revision",
    "TensorCost",
    "Tensors",
    "build_plan",
    "costs_of",
    "expand",
    "explain",
    "stored_encodings",
]
