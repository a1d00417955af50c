"""From a recipe and a budget to a plan: how deep each block of each input is read.

Who lives here: `recipe` and `inputs` (a simple recipe, spelled out), `mergekit/` (theirs), both to
`lines`; `prepared`, `checking` and `equality` (what can be known at once); `costs`, `gains`,
`selection` and `budget` (what to read); `resolution`, `elections` and `numbers` (a method's
numbers); `build` (all of it), `explain` and `table` (what it means). `reads`, `trees` and
`vocabulary` are used by the engine as well.

What comes in: revisions, a method, parameters, profiles. What goes out: a `Plan` and what it costs.

What never happens here: no weight is read, no torch is loaded; what must be measured is asked of
the engine.
"""

from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge, build_plan
from mergepipe.planner.explain import Explanation, costs_of, explain
from mergepipe.planner.inputs import Tensors, expand
from mergepipe.planner.lines import Line, LineInput, Made, Merge
from mergepipe.planner.planner import Catalog, Planner, Revision
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
]
