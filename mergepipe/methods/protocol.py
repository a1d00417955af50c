"""The contract between merge methods and those who plan and execute merges.

Everything is values in, values out: no storage, no clock, no global state. Importing this package
loads numpy only; torch and numba are imported by the first element pass that needs them.

**A method is a registry entry** (`Method`, found with `registry.find("TIES")`), used in this order:

1. `method.check_models(count, base=...)` and `settings = method.settings(shared, experts)`, per
   tensor if parameters vary: all that can be refused is refused here, before any weight is read.
   Then `method = method.variant(settings, base=...)`: the entry that computes what was asked for
   (nuslerp row by row, multislerp of differences...), most often the method itself. Scope, base,
   needs and element pass are the variant's, and a plan keeps its name.
2. `method.needs(settings)` lists the statistics it takes before the element pass: each a `Need`, a
   hashable plain value. A TRIM or BAND comes from a profile's exact counts
   (`statistics.from_counts`), at no read; any need can be measured from the blocks
   (`statistics.measure`, or `partial` and `combine` there for an engine that spreads the work): in
   `statistics.of(need).passes` passes, over ranges of `.scope`, with the base where `.deltas`.
   `statistics.supposed` guesses, for those who must choose before anything is measured.
3. `scalars = method.resolve(settings, {need: value}, coarse_shares)`: plain floats, to be kept in
   the plan, all of them (`ceiling` and `extras` too). From here on the parameters and statistics
   are not needed any more. `coarse_shares` has, per expert, the share of the coarse L1 norm that
   lies within its trim (`trim.coarse_share`); methods that do not trim ignore it.
4. `sweeps.merge(method, Unit(...), out)`: the element pass over any range, on any thread.

**Scope.** ELEMENT: a range may be any piece of the tensor. ROW: a range holds whole rows of
`Unit.row_length`, the tensor's last dimension (a vector is one row). TENSOR: the range is the whole
tensor; no method is. A method whose only whole-tensor ingredients are its needs is ELEMENT (slerp
is: it resolves to two weights). Statistics have a scope as well, which need not be the method's.
Column statistics also want `Unit.slab_length`; nothing else does.

**Omitted and coarse terms.** `Same` is d = 0 and takes part in every formula and statistic as such
(in a variance, a rank, a dot product, a mean over the models); a coarse estimate stands for d.

**Promises of an element pass.**

* float32 throughout (float64 if any input or the output is F64; sums over rows and what follows
  from them, and variances over models, are float64 always), sums in the order of the recipe,
  rounded once to the output dtype, to nearest even; overflow in F8 saturates. A NaN in the result
  has one bit pattern per dtype. Weights, factors and thresholds are rounded to float32 first.
* Same inputs, same bytes: for any split into ranges, any thread, any CPU (no fastmath, no fused
  multiply-add), and for both implementations, fused (numba; BF16, F16 and F32) and torch on CPU,
  where a method has both.
  CUDA differs at most where its float32 division or conversion does.
* Where the merged delta is exactly 0, a task-vector method gives the base's bits.
* A NaN delta passes a trim but agrees with no sign: an election drops it, other methods pass it
  on. Inputs are finite in any sane checkpoint; nothing here raises for one that is not.
* dtypes: F64, F32, BF16, F16 and the 8-bit floats but F8_E8M0 (`ARITHMETIC`). Anything else
  (integers, booleans, complex, packed 4- and 6-bit floats) can only be copied: passthrough with
  scale 1. An arithmetic method refuses it with MergeInputError, so whoever plans takes such a
  tensor from the base where all models agree, and reports it where they do not.

**Adding a method**: one file that builds a `Method`, one line in `registry.py`. Methods that come
to a weighted sum of weights or of deltas (slerp, nuslerp, karcher, model_stock... all weights
follow from a Gram matrix) only write `needs` and `resolve`; others bring a sweep of their own,
which only needs a torch function.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mergepipe.dtypes import DTYPES, DType
from mergepipe.errors import MergeInputError
from mergepipe.methods.parameters import Parameter, Settings, Value, read_settings
from mergepipe.methods.terms import Scalars, Unit

FUSED = frozenset(DTYPES[name] for name in ("BF16", "F16", "F32"))
ARITHMETIC = FUSED | {
    DTYPES[name] for name in ("F64", "F8_E5M2", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
}


class Scope(StrEnum):
    """The smallest piece of a tensor that an element pass may be given."""

    ELEMENT = "element"
    ROW = "row"
    TENSOR = "tensor"


class NeedKind(StrEnum):
    """A statistic over a whole tensor, and the value it has (a tuple of floats).

    Of one expert, over its d:

    TRIM         (threshold, density reached, L1 of d, L1 of what is kept); `trim.Trim`. 2 passes,
                 or none
    BAND         (threshold, ceiling, density reached, L1 of d, L1 of what is kept); `trim.Band`.
                 2 passes, or none
    MASK_L1      (L1 of d, L1 of d under its random mask). 1 pass
    RANK_L1      the same under della's mask. 1 pass over whole rows
    IMPORTANCE   (threshold,) of arcee_fusion: what |d| times its row's divergence must reach.
                 2 passes over whole rows

    Over all K models:

    GRAM         dot products of the weights, row by row of the K x K matrix. 1 pass
    DELTA_GRAM   the same of the d. 1 pass
    COLUMNS      of two models, C columns (`Unit.slab_length`): C dot products a.a, then C of a.b,
                 then C of b.b. 1 pass
    DELTA_COLUMNS  the same of the d. 1 pass
    SPREAD       sce: (threshold of the variance over the d, then K means of the d^2 that reach it).
                 3 passes, or 1 where all are kept
    SHARING      ram: (of each model in turn, elements where it alone is active, elements where
                 others are too). 1 pass

    Passes and scope are those of `statistics.of(need)`. All but GRAM and COLUMNS look at d, and
    take the base. All but MASK_L1 and RANK_L1 are independent of seed and place.
    """

    TRIM = "trim"
    BAND = "band"
    MASK_L1 = "mask_l1"
    RANK_L1 = "rank_l1"
    IMPORTANCE = "importance"
    GRAM = "gram"
    DELTA_GRAM = "delta_gram"
    COLUMNS = "columns"
    DELTA_COLUMNS = "delta_columns"
    SPREAD = "spread"
    SHARING = "sharing"


class Need(Struct, frozen=True):
    """One statistic of one tensor: of an expert, or over all models where `expert` is None.

    density  the share to keep, for TRIM, BAND, MASK_L1, RANK_L1 and SPREAD
    gamma    the share to drop of the largest, for BAND
    epsilon  for RANK_L1 how far chances differ from the density; for SHARING what |d| must exceed
    """

    kind: NeedKind
    expert: int | None = None
    density: float = 1.0
    gamma: float = 0.0
    epsilon: float = 0.0


NeedValues: TypeAlias = Mapping[Need, Sequence[float]]
Output: TypeAlias = npt.NDArray[np.uint8]
ElementPass: TypeAlias = Callable[[Unit, Output], None]
DeviceElementPass: TypeAlias = Callable[[Unit, Output, str], None]


class Sweep(Struct, frozen=True):
    """An element pass: a torch implementation, and a fused one for the CPU where it is worth it.

    Each is a function that imports its implementation when called: a registry entry is free.
    """

    name: str
    torch: DeviceElementPass
    fused: ElementPass | None = None


def no_needs(settings: Settings) -> tuple[Need, ...]:
    """For methods without whole-tensor statistics."""
    return ()


def no_further_check(settings: Settings) -> None:
    """For methods whose parameters are independent of each other."""


class Method(Struct, frozen=True):
    """A merge method: what it is called, what it needs, what it takes, and how it is computed.

    omitted_is_noop  whether an expert with d = 0 leaves the result as if its delta were not there
                     (then a block that no expert changes is the base's block)
    minimum_models, maximum_models  experts; the base is not counted unless it is one of the terms
    base_is_term     whether the base model that a mergekit config names is one of the models that
                     are merged (slerp's first) and not what differences are taken from
    ignored          parameters of mergekit that change nothing here or there
    choose           the variant for settings and a base to take differences from, or not
    version          of its bytes: raised whenever the same inputs would give other bytes
    """

    name: str
    summary: str
    source: str
    scope: Scope
    needs_base: bool
    omitted_is_noop: bool
    parameters: tuple[Parameter, ...]
    sweep: Sweep
    resolve_with: Callable[[Settings, NeedValues, Sequence[float]], Scalars]
    needs: Callable[[Settings], tuple[Need, ...]] = no_needs
    check: Callable[[Settings], None] = no_further_check
    aliases: tuple[str, ...] = ()
    minimum_models: int = 1
    maximum_models: int | None = None
    version: int = 1
    base_is_term: bool = False
    ignored: tuple[str, ...] = ()
    choose: "Callable[[Settings, bool], Method] | None" = None

    def __reduce__(self) -> "tuple[Callable[[str], Method], tuple[str]]":
        """Pickled by its name: its functions are code, and stay where they are."""
        from mergepipe.methods import registry

        return registry.find, (self.name,)

    def variant(self, settings: Settings, *, base: bool) -> "Method":
        """The registry entry that computes this.

        base  whether differences from a base are to be merged where the method leaves that open
              (nuslerp, multislerp): a mergekit config that names `base_model` means them
        """
        return self if self.choose is None else self.choose(settings, base)

    def mergekit_defaults(self) -> dict[str, Value]:
        """Shared values a mergekit config means where it is silent and we would mean another."""
        return {
            parameter.name: parameter.mergekit_default
            for parameter in self.parameters
            if parameter.mergekit_default is not None
        }

    def settings(
        self, shared: Mapping[str, object], experts: Sequence[Mapping[str, object]]
    ) -> Settings:
        """Checked parameters with defaults filled in; raises MergeInputError (`read_settings`)."""
        settings = read_settings(self.name, self.parameters, shared, experts)
        self.check(settings)
        return settings

    def check_models(self, count: int, *, base: bool) -> None:
        """Raise MergeInputError unless the method works with `count` experts and this base."""
        if self.needs_base and not base:
            raise MergeInputError(f"method {self.name} needs a base model", "name one with --base")
        if count < self.minimum_models or (
            self.maximum_models is not None and count > self.maximum_models
        ):
            raise MergeInputError(f"method {self.name} takes {self._models()}, not {count}")

    def accepts(self, dtype: DType) -> bool:
        """Whether the method can compute with this dtype; any can be copied (passthrough)."""
        return dtype in ARITHMETIC

    def resolve(
        self,
        settings: Settings,
        values: NeedValues | None = None,
        coarse_shares: Sequence[float] | None = None,
    ) -> Scalars:
        """The plain numbers of the element pass, from parameters and the values of `needs`.

        coarse_shares  per expert, used by methods that trim; absent: no coarse term is scaled.
        """
        shares = coarse_shares or (1.0,) * len(settings.experts)
        return self.resolve_with(settings, values or {}, shares)

    def _models(self) -> str:
        if self.minimum_models == self.maximum_models:
            return f"exactly {self.minimum_models} model{'s' if self.minimum_models > 1 else ''}"
        if self.maximum_models is None:
            return f"at least {self.minimum_models}"
        return f"{self.minimum_models} to {self.maximum_models} models"
