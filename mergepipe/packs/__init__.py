"""Packs of records, the index over them, and blocks read through both (docs/format.md).

Who lives here: `format` has the bytes of a pack, `reader` reads its frame and `writer` writes it
(several at once: `open_packs`); `records` are what a pack holds, with their places, and the
encodings they make up; `index` finds them, over an LMDB environment, and can be deleted at will
(`entries` is what it is told of a pack); `storage` keeps packs and index in step.
A block is read by `choice` (which encoding), `runs` (neighbours at once) and `decoding` (through
its base), which all readers use; `blocks` is the one that mends. `encoded_blocks` and `transaction`
are what one commit, merge or fetch adds, `sink` is how those who make it see them. `promises` says
what of all this a lazy clone still has to fetch.

What comes in: encoded blocks and objects. What goes out: blocks whose hash was compared with their
id.

What never happens here: nothing is believed because the index says so, and no published pack
changes.
"""
