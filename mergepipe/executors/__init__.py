"""Work handed to whoever does it: threads, processes, a cluster. The contract: docs/scale-out.md.

Who lives here: `segments` has the values that travel; `places` say where stores are; `bench` does
a segment, and `packing` writes its packs; `home` is the coordinator's side; `threads`, `processes`
(each a `worker`) and `ray_cluster` are the executors, `crews` what the latter two share; `choosing`
reads `--on`.

What comes in: segments of items of a job. What goes out: values for each item, packs that are
durable and not visible, bytes read.

What never happens here: nothing is decided about what is made, and nothing is published.
"""
