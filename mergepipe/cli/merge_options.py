"""The options that `mp plan` and `mp merge` share, and what they come to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from mergepipe.cli import completion
from mergepipe.errors import UsageError

if TYPE_CHECKING:
    from mergepipe.api.plan_request import PlanRequest

Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="REV",
        help="What the experts were trained from; without it, the base they have in common.",
        autocompletion=completion.revisions,
    ),
]
# Written out, as help must not load them; a test compares.
METHODS = (
    "ties",
    "task_arithmetic",
    "linear",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "dare_ties",
    "dare_linear",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "model_stock",
    "nearswap",
    "sce",
    "ram",
    "ramplus_tl",
    "arcee_fusion",
    "passthrough",
)
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help=f"{', '.join(METHODS)}. Without it, ties; docs/methods.md tells them apart.",
        autocompletion=completion.methods,
    ),
]
Weight = Annotated[
    str | None,
    typer.Option("--weight", metavar="W,...", help="One for all experts, or one for each."),
]
Density = Annotated[
    str | None,
    typer.Option(
        "--density",
        metavar="D,...",
        help="Share of its changes that an expert keeps: one for all, or one for each.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", metavar="KEY=VALUE", help="Any other parameter of the method; repeat."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="SIZE",
        help="Expert bytes to read at most: 2GiB, 25% of what the exact merge reads, or raw:10% "
        "of the experts' own size. Without it, everything: the exact merge.",
    ),
]
BudgetTotal = Annotated[
    str | None,
    typer.Option(
        "--budget-total",
        metavar="SIZE",
        help="The same for all that is read, what the base takes included.",
    ),
]
MaxShare = Annotated[
    str | None,
    typer.Option(
        "--max-share",
        metavar="PCT",
        help="What one expert may get of the budget at most, such as 40%.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Of random masks."),
]
DType = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Of the result, such as bfloat16; experts may then have other dtypes.",
    ),
]
OutDType = Annotated[
    str | None,
    typer.Option("--out-dtype", metavar="DTYPE", help="The same; wins over --dtype."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="cpu|cuda", help="Where the arithmetic runs."),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHO",
        help="Who does the work: threads, processes[:N], ray[:N] or ray://HOST:PORT.",
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Tensors that an expert lacks count as the base's.",
        show_default=False,
    ),
]
AllowNonFinite = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="Merge though values are infinite or NaN, in the inputs or in the result.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show what it would read and keep; write nothing.", show_default=False
    ),
]


class MergeOptions(Struct, frozen=True):
    """What was typed; None where an option was not given."""

    base: str | None
    method: str | None
    weight: str | None
    density: str | None
    parameters: Sequence[str] | None
    budget: str | None
    seed: int | None
    dtype: str | None
    out_dtype: str | None
    device: str | None
    allow_missing: bool
    budget_total: str | None = None
    max_share: str | None = None

    def given(self) -> list[str]:
        """The options about a plan that were given, as they are typed."""
        values = {
            "--base": self.base,
            "--method": self.method,
            "--weight": self.weight,
            "--density": self.density,
            "-p": self.parameters or None,
            "--budget": self.budget,
            "--budget-total": self.budget_total,
            "--max-share": self.max_share,
            "--seed": self.seed,
            "--dtype": self.dtype,
            "--out-dtype": self.out_dtype,
            "--allow-missing": self.allow_missing or None,
        }
        return [name for name, value in values.items() if value is not None]

    def request(self, experts: Sequence[str]) -> "PlanRequest":
        """The plan that they ask for. Raises UsageError, MergeInputError."""
        from mergepipe.api.plan_request import PlanRequest
        from mergepipe.dtypes import dtype_called

        parameters: dict[str, object] = dict(_parameter(text) for text in self.parameters or ())
        if len(parameters) != len(self.parameters or ()):
            raise UsageError("-p gives a parameter twice", "give each parameter once")
        own: dict[str, list[float] | None] = {}
        for name, text in (("weight", self.weight), ("density", self.density)):
            own[name] = None
            if text is None:
                continue
            if name in parameters:
                raise UsageError(f"both --{name} and -p {name}=... are given", "give one of them")
            values = _numbers(text, f"--{name}")
            if len(values) == 1:
                parameters[name] = values[0]
            else:
                own[name] = values
        if self.dtype is not None:
            dtype_called(self.dtype)  # wrong is wrong, also where --out-dtype wins
        request = PlanRequest(
            experts=tuple(experts),
            base=self.base,
            method=self.method or "ties",
            budget=self.budget,
            weights=own["weight"],
            densities=own["density"],
            out_dtype=self.out_dtype or self.dtype,
            seed=self.seed or 0,
            allow_missing=self.allow_missing,
            parameters=parameters,
            budget_total=self.budget_total,
            max_share=self.max_share,
        )
        request.check()
        return request

    def checked_device(self) -> str:
        """The device to merge on. Raises UsageError if there is none such."""
        from mergepipe.api.plan_request import check_device

        device = self.device or "cpu"
        check_device(device)
        return device


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is not a number, or numbers with commas between",
            f"such as {option} 0.5 or {option} 0.5,0.3",
        ) from None


def _parameter(text: str) -> tuple[str, object]:
    """`KEY=VALUE` with the value as a truth value, a number, or the text that it is."""
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise UsageError(f"-p {text!r} is not KEY=VALUE", "such as -p lambda=0.8")
    truths = {"true": True, "false": False}
    if value.lower() in truths:
        return key.strip(), truths[value.lower()]
    try:
        return key.strip(), float(value)
    except ValueError:
        return key.strip(), value
