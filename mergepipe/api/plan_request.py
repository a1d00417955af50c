"""What is asked of a plan, as a value, and all that can be refused before a model is looked at."""

import keyword
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from mergepipe.dtypes import DType, dtype_called
from mergepipe.errors import MergeInputError, UsageError

if TYPE_CHECKING:
    from mergepipe.methods.protocol import Method
    from mergepipe.planner.budget import Budget
    from mergepipe.planner.recipe import Setting

_SEEDS = 1 << 63


def without_underscores(parameters: "Mapping[str, Setting]") -> "dict[str, Setting]":
    """Parameters of a method as keywords give them: `lambda_` is `lambda`, a word of Python."""
    return {
        name[:-1] if keyword.iskeyword(name[:-1]) else name: value
        for name, value in parameters.items()
    }


class PlanRequest(Struct, frozen=True):
    """A merge as a user asks for it; see `Repository.plan` for the meaning of each."""

    experts: Sequence[str]
    base: str | None = None
    method: str = "ties"
    budget: str | float | None = None
    weights: Sequence[float] | None = None
    densities: Sequence[float] | None = None
    out_dtype: str | None = None
    seed: int = 0
    allow_missing: bool = False
    parameters: "Mapping[str, Setting]" = field(default_factory=dict)
    budget_total: str | float | None = None
    max_share: str | float | None = None

    def own(self) -> "list[dict[str, Setting]]":
        """Parameters per expert. Raises UsageError for too few or too many."""
        settings_of: list[dict[str, Setting]] = [{} for _ in self.experts]
        for name, values in (("weight", self.weights), ("density", self.densities)):
            if values is None:
                continue
            if len(values) != len(self.experts):
                raise UsageError(
                    f"{len(values)} values of {name} for "
                    f"{len(self.experts)} expert{'s' if len(self.experts) != 1 else ''}",
                    f"give one {name} for each expert, in their order, or a single one for all",
                )
            for settings, value in zip(settings_of, values, strict=True):
                settings[name] = value
        return settings_of

    def limits(self) -> "Budget":
        """How much may be read. Raises UsageError."""
        from mergepipe.planner.budget import Budget

        return Budget.asked(self.budget, self.budget_total, self.max_share)

    def check(self) -> None:
        """Raise UsageError or MergeInputError for what is wrong whatever the models are."""
        from mergepipe.methods import registry
        from mergepipe.planner.recipe import PerTensor

        if not self.experts:
            raise UsageError("no expert is named", "name at least one revision to merge")
        if not 0 <= self.seed < _SEEDS:
            raise UsageError(f"{self.seed} is no seed", "any number from 0 to 2^63 - 1 is one")
        method = registry.find(self.method)
        own = self.own()
        self.limits()
        self.dtype(method)
        if not any(isinstance(setting, PerTensor) for setting in self.parameters.values()):
            method.settings(self.parameters, own)
        # A base may still turn out to be known: experts can have one in common.
        method.check_models(len(self.experts), base=True)

    def dtype(self, method: "Method") -> DType | None:
        """The output's dtype, None for each tensor's own. Raises UsageError, MergeInputError."""
        if self.out_dtype is None:
            return None
        known = dtype_called(self.out_dtype)
        if not method.accepts(known):
            raise MergeInputError(
                f"method {method.name} cannot compute {known}",
                "choose a float dtype, such as BF16, F16 or F32",
            )
        return known


def check_device(device: str) -> None:
    """Raise UsageError for a device that this machine does not have."""
    if device == "cpu":
        return
    if device.partition(":")[0] != "cuda":
        raise UsageError(f"no device is called {device!r}", "cpu, cuda, or cuda:1 for the second")
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"there is no device {device!r} here: {reason}", "leave --device out to use the CPU"
        ) from error
