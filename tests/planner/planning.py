"""Recipes of stored models, planned as tests ask for them."""

from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge
from mergepipe.planner.recipe import Expert, Model, Recipe, Setting
from tests.planner.stored_models import Family, plan_recipe


def recipe(models: Family, method: str, **parameters: Setting) -> Recipe:
    experts = tuple(
        Expert(f"expert-{number}", snapshot) for number, snapshot in enumerate(models.experts)
    )
    return Recipe(method, experts, Model("base", models.base), parameters)


def planned(
    models: Family, method: str, budget: str | None = None, **parameters: Setting
) -> PlannedMerge:
    return plan_recipe(
        recipe(models, method, **parameters),
        Budget.parse(budget),
        models.shelf,
        models.profiles,
    )
