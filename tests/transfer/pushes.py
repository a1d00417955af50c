"""Models on their way to the receiving side, as a push brings them."""

from mergepipe.ids import ObjectId, PackId
from mergepipe.transfer.receiving import ReceivingStore

from .forging import BLOCK, Forge, noise, send

MAIN = "refs/heads/main"


def a_model(size: int = 3 * BLOCK) -> tuple[dict[PackId, bytes], ObjectId]:
    forge = Forge()
    commit = forge.model(noise(size))
    return forge.packs(), commit


def deliver(store: ReceivingStore, packs: dict[PackId, bytes]) -> None:
    for pack, data in packs.items():
        send(store, pack, data)
