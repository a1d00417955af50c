"""Plans executed: blocks streamed, merged, named, published.

Who lives here: `engine` is the whole run; `laying`, `steps` and `batches` turn lines of a plan into
units of work (`work`), `streaming` runs them on `executors`; `reading` fetches their blocks through
the `meter`, `computing` runs the method, `encoding` stores what came out. `measuring` makes
statistics before a plan is frozen; `memo` remembers results; `manifest`, `output` and `result` say
what was made; `replay` makes it again.

What comes in: a plan. What goes out: a snapshot, a manifest, a commit, or nothing at all.

What never happens here: no depth is chosen, and no record is read that the plan does not allow.
"""
