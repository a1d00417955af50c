"""Plans that need statistics which no profile knows: what is measured, when and how."""

from collections.abc import Sequence

import pytest

from mergepipe.errors import MergeInputError, OverBudget
from mergepipe.methods.protocol import Need, NeedKind
from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import LinePlan, PlanProfile
from mergepipe.planner.budget import Budget
from mergepipe.planner.build import PlannedMerge
from mergepipe.plans.measured import Measured
from mergepipe.plans.numbers import scalars_of
from tests.planner.planning import planned, recipe
from tests.planner.stored_models import Family, family, plan_recipe


@pytest.fixture(scope="module")
def models() -> Family:
    return family()


class Measuring:
    """Answers with the truth, and remembers what it was asked."""

    def __init__(self, models: Family, answers: dict[NeedKind, tuple[float, ...]]) -> None:
        self.models = models
        self.answers = answers
        self.asked: list[tuple[str, tuple[Need, ...], LinePlan]] = []

    def __call__(
        self,
        lines: Sequence[LinePlan],
        profiles: Sequence[PlanProfile],
        needs: Sequence[Need],
        seed: int,
        /,
    ) -> Measured:
        draft = lines[-1]
        self.asked.append((draft.name, tuple(needs), draft))
        coarse = {row for row, own in enumerate(draft.depths) if {0, 1} & set(own)}
        assert {one.model for one in profiles} == coarse
        return Measured({need: self.answers[need.kind] for need in needs}, 1000, 10)


def test_thresholds_that_no_profile_knows_are_measured_first() -> None:
    models = family(2, dtype="F32")
    measure = Measuring(models, {NeedKind.TRIM: (0.004, 0.5, 2.0, 1.0)})
    want = recipe(models, "ties", density=0.5)

    def build(budget: str | None) -> PlannedMerge:
        return plan_recipe(want, Budget.parse(budget), models.shelf, models.profiles, measure)

    exact = build(None)
    assert [name for name, _, _ in measure.asked] == list(models.base_weights)
    for _, needs, draft in measure.asked:
        assert {need.expert for need in needs} == {0, 1}
        assert Depth.COARSE not in set(draft.depths[0])
    assert scalars_of(exact.plan.lines[0]).experts[0].threshold == 0.004
    assert exact.measured_expert_bytes == 4000
    # Two passes for the thresholds, one for the merge.
    per_pass = planned(models, "task_arithmetic").costs.expert_bytes_full
    assert exact.costs.expert_bytes_full == 3 * per_pass
    cut = build("75%")
    assert 2 * per_pass < cut.costs.expert_bytes_planned <= int(0.75 * 3 * per_pass)
    with pytest.raises(OverBudget):
        build("50%")
    with pytest.raises(MergeInputError, match="statistics"):
        planned(models, "ties", density=0.5)


def test_statistics_of_what_is_read_are_measured_at_the_depths_chosen() -> None:
    models = family(2)
    measure = Measuring(models, {NeedKind.GRAM: (4.0, 0.0, 0.0, 4.0)})
    want = recipe(models, "slerp", t=0.5)
    cut = plan_recipe(want, Budget.parse("40%"), models.shelf, models.profiles, measure)
    single = planned(models, "task_arithmetic").costs.expert_bytes_full
    assert cut.costs.expert_bytes_full == 2 * single
    assert 0 < cut.costs.expert_bytes_planned <= 0.8 * single
    for (_, _, draft), line in zip(measure.asked, cut.plan.lines, strict=True):
        assert draft.depths == line.depths
        # Orthogonal by the answer: not the straight line that was supposed while choosing.
        assert scalars_of(line).experts[0].weight == pytest.approx(0.5**0.5)
