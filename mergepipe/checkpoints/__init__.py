"""Files into the store and out of it: commit, import, checkout, export.

Who lives here: `ingest` reads files once, cut by `layout`, encoded by `deltas` against what
`base_choice` and `bases` found;
`commits` makes a snapshot and history of it, `publication` makes it visible. `assembly`, `export`
and `checkout` are the way out; `worktree` is what lies beside `.mergepipe`. `derived` and
`adapted_tensors` make tensors of stored ones before a merge; `layouts` are snapshots that say which
files a merge will have.

What comes in: paths. What goes out: snapshots and commits; files, bit for bit.

What never happens here: weights are not computed with, and no file is seen half written.
"""
