"""A kernel as it is kept: the object file that LLVM wrote."""

from msgspec import Struct


class ObjectCode(Struct, frozen=True):
    """An object file, the function in it that C calls, and what that needs of the C library."""

    symbol: str
    needs: list[str]
    code: bytes
