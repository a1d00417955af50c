"""What became of one block of an ingest."""

from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.ids import BlockId
from mergepipe.packs.encoded_blocks import EncodedBlock

if TYPE_CHECKING:
    from mergepipe.catalog.facts import BlockFacts


class BlockOutcome(Struct, frozen=True):
    """A block's id and, where the store did not have it, its encoding.

    `facts` are its statistics against the base block, where the encoder
    made them on the way.
    """

    id: BlockId
    encoded: EncodedBlock | None
    facts: "BlockFacts | None" = None


class BlockNote(Struct, frozen=True):
    """What is told of a block once it was done with, wherever that was: no bytes of it.

    `nonfinite`: its values that are infinite or NaN; `square`: the sum of squares of the others, as
    `values.estimated_square` has it.
    """

    id: BlockId
    facts: "BlockFacts | None" = None
    nonfinite: int = 0
    square: float = 0.0
