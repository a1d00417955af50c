"""Immutable objects (tensor, snapshot, commit, profile, plan, manifest) and their one encoding.

Who lives here: `records` and `merging` are the objects, field by field as docs/format.md and
docs/format-merge.md list them; `references` says what each refers to; `encoding` makes and checks
canonical bytes; `store` reads and adds objects by id; `grid` says where blocks begin, `depths`
how deep they may be read; `paths` says which file names a snapshot may hold.

What comes in: values. What goes out: ids, and values whose bytes were hashed and are canonical.

What never happens here: no object holds a host, a path of this machine or a stored size; only a
commit has a time.
"""
