"""One vocabulary out of several: that of one model, with the tokens it shall have beside them.

Tokens of the first vocabulary keep their ids; all others come after, in an order that depends on
nothing but the inputs: ordinary tokens model by model and id by id, then added tokens likewise,
then tokens that a recipe makes up. (mergekit 0.1.5 has the same groups; inside them its order
changes from run to run.)
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from mergepipe.vocabularies.vocabulary import AddedToken, Vocabulary


class Combined(Struct, frozen=True):
    """The vocabulary of the output; `conflicts`: added tokens on whose flags models disagree."""

    vocabulary: Vocabulary
    conflicts: tuple[str, ...]


def combine(
    first: Vocabulary, others: Sequence[Vocabulary] = (), tokens: Iterable[str] = ()
) -> Combined:
    """`first`, with the tokens of `others`, and added `tokens`.

    Where several models add the same token, the first one's flags count. A token that a model adds
    is an added token in the output, also where another has it as an ordinary one.
    """
    ids = dict(first.ids)
    added = dict(first.added)
    conflicts: dict[str, None] = {}
    end = first.end
    for other in others:
        for token in sorted(other.ids, key=other.ids.__getitem__):
            if token not in other.added and token not in ids:
                ids[token] = end
                end += 1
    for other in others:
        for token, flags in other.added.items():
            known = added.get(token)
            if known is None:
                added[token] = flags
            elif known != flags:
                conflicts.setdefault(token)
            if token not in ids:
                ids[token] = end
                end += 1
    for token in tokens:
        if token not in ids:
            ids[token] = end
            added[token] = AddedToken(token)
            end += 1
    by_id = dict(sorted(added.items(), key=lambda item: ids[item[0]]))
    return Combined(replace(first, ids=ids, added=by_id), tuple(conflicts))
