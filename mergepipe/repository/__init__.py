"""One repository's own affairs: layout, settings, refs, history, and its upkeep.

Who lives here: `layout`; `config` with `config_edits`; `refs` and `reflog` (what moves, and the
record of it), `locks`; `revisions` (names to commits), `history`, `graph` and `diff`; `roots` and
`closure` (what is kept alive, and the one walk over it), `gc` with `gc_round` and `survey`, `fsck`
with `store_check`, `history_check` and `repair`; `usage`.

What comes in: names that people type, and new ids for refs. What goes out: commits, and moved refs.

What never happens here: no tensor is computed with, no other repository is talked to.
"""
