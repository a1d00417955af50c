"""Every merge method by name. A new one is a file of its own and a line here.

Packages may bring others (`installed`).
"""

from mergepipe.errors import MergeInputError
from mergepipe.methods import installed
from mergepipe.methods.arcee_fusion import ARCEE_FUSION
from mergepipe.methods.breadcrumbs import BREADCRUMBS, BREADCRUMBS_TIES
from mergepipe.methods.dare import DARE_LINEAR, DARE_TIES
from mergepipe.methods.della import DELLA, DELLA_LINEAR
from mergepipe.methods.karcher import KARCHER
from mergepipe.methods.linear import LINEAR
from mergepipe.methods.model_stock import MODEL_STOCK, MODEL_STOCK_ROWS
from mergepipe.methods.multislerp import MULTISLERP, MULTISLERP_DELTAS
from mergepipe.methods.nearswap import NEARSWAP
from mergepipe.methods.nuslerp import NUSLERP, NUSLERP_VARIANTS
from mergepipe.methods.parameters import nearest
from mergepipe.methods.passthrough import PASSTHROUGH
from mergepipe.methods.protocol import Method
from mergepipe.methods.ram import RAM, RAMPLUS_TL
from mergepipe.methods.sce import SCE
from mergepipe.methods.slerp import SLERP
from mergepipe.methods.task_arithmetic import TASK_ARITHMETIC
from mergepipe.methods.ties import TIES

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        LINEAR,
        TASK_ARITHMETIC,
        TIES,
        DARE_LINEAR,
        DARE_TIES,
        BREADCRUMBS,
        BREADCRUMBS_TIES,
        DELLA,
        DELLA_LINEAR,
        SLERP,
        NUSLERP,
        MULTISLERP,
        KARCHER,
        MODEL_STOCK,
        NEARSWAP,
        SCE,
        RAM,
        RAMPLUS_TL,
        ARCEE_FUSION,
        PASSTHROUGH,
    )
}
# What some of them turn into by their parameters (`Method.variant`): found by name, as plans do.
VARIANTS: dict[str, Method] = {
    method.name: method for method in (*NUSLERP_VARIANTS[1:], MULTISLERP_DELTAS, MODEL_STOCK_ROWS)
}
_BY_ANY_NAME = {
    name: method
    for method in (*METHODS.values(), *VARIANTS.values())
    for name in (method.name, *method.aliases)
}


def find(name: str) -> Method:
    """The method called `name` or one of its aliases, in any case. Raises MergeInputError.

    Ours come first: a package cannot replace one.
    """
    wanted = name.strip().lower()
    if wanted in _BY_ANY_NAME:
        return _BY_ANY_NAME[wanted]
    method = installed.load(wanted)
    if method is None:
        raise MergeInputError(f"no merge method {name!r}", nearest(name, names()))
    return method


def names() -> list[str]:
    """What `find` knows: our methods, then those of installed packages."""
    return [*METHODS, *(name for name in installed.installed() if name not in _BY_ANY_NAME)]
