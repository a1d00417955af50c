"""Whether the models that a plan merges are here."""

from mergepipe.errors import MergepipeError
from mergepipe.objects.merging import Plan
from mergepipe.objects.store import ObjectStore


def require_models(plan: Plan, objects: ObjectStore) -> None:
    """Raise MergepipeError if a model that a plan merges is not here."""
    absent = [model for model in plan.models if not objects.has(model)]
    if absent:
        named = ", ".join(model.hex()[:12] for model in absent)
        raise MergepipeError(
            f"{len(absent)} of the {len(plan.models)} merged models are not here: {named}",
            "ask where it was made: a release leaves them out, a shallow clone does (mp fetch "
            "--unshallow brings them), and mp prune may let them go",
        )
