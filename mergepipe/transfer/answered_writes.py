"""Which moves of refs were answered: a client whose reply was lost sends the same one again."""

from collections import OrderedDict

from mergepipe.ids import ObjectId
from mergepipe.repository.refs import RefStore

_REMEMBERED = 1024


def why_of(write_id: bytes) -> str:
    """What the log of a ref says of a move that was asked for under this id."""
    return f"push {write_id.hex()}"


class AnsweredWrites:
    """The last answers by their write ids, and what the logs of `refs` say of older ones."""

    def __init__(self, refs: RefStore) -> None:
        self._refs = refs
        self._answers: OrderedDict[bytes, bool] = OrderedDict()

    def of(
        self, key: str, old: ObjectId | None, new: ObjectId | None, write_id: bytes
    ) -> bool | None:
        """What became of a write that was sent before, or None: it is new."""
        answer = self._answers.get(write_id)
        if answer is not None:
            return answer
        current = self._refs.read(key)
        if new is None:
            # The log goes with the ref; it is as was asked, whoever did it.
            return True if current is None and old is not None else None
        if self._refs.reflog is None:
            return None
        why = why_of(write_id)
        later = current  # where the next line begins: the ref itself, for the last one
        for entry in self._refs.reflog.read(key):
            if entry.why == why and (entry.old, entry.new) == (old, new) and later == new:
                return True
            later = entry.old
        return None

    def remember(self, write_id: bytes, done: bool) -> None:
        """Keep an answer; the oldest go."""
        self._answers[write_id] = done
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
