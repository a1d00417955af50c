"""Every merge method by name. A new one is a file of its own and a line here."""

from mergepipe.errors import MergeInputError
from mergepipe.methods.dare import DARE_LINEAR, DARE_TIES
from mergepipe.methods.linear import LINEAR
from mergepipe.methods.parameters import nearest
from mergepipe.methods.passthrough import PASSTHROUGH
from mergepipe.methods.protocol import Method
from mergepipe.methods.slerp import SLERP
from mergepipe.methods.task_arithmetic import TASK_ARITHMETIC
from mergepipe.methods.ties import TIES

METHODS: dict[str, Method] = {
    method.name: method
    for method in (LINEAR, TASK_ARITHMETIC, TIES, DARE_LINEAR, DARE_TIES, SLERP, PASSTHROUGH)
}
_BY_ANY_NAME = {
    name: method for method in METHODS.values() for name in (method.name, *method.aliases)
}


def find(name: str) -> Method:
    """The method called `name` or one of its aliases, in any case. Raises MergeInputError."""
    try:
        return _BY_ANY_NAME[name.strip().lower()]
    except KeyError:
        raise MergeInputError(f"no merge method {name!r}", nearest(name, METHODS)) from None
