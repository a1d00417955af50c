"""Packs of records, the index over them, and blocks read through both (docs/format.md).

Who lives here: `format` has the bytes of a pack, `reader` and `writer` read and write them; `index`
finds records, over an LMDB environment, and can be deleted at will; `storage` keeps packs and index
in step; `blocks` reads blocks through their bases, verified; `transaction` is what one commit,
merge or fetch adds. Stores of lazy clones, whose records come when they are read, are here too.

What comes in: encoded blocks and objects. What goes out: blocks whose hash was compared with their
id.

What never happens here: nothing is believed because the index says so, and no published pack
changes.
"""
