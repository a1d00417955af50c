"""What a plan means, for who makes it, who executes it and who reads it later.

Who lives here: `trees` (a line with all that it is made of), `units` (how much of a tensor is made
at once), `reads` (which records a step reads: the one place that decides it), `numbers` (a line's,
as it stores them), `equality`, `cost_counting`, `costs` and `passes` (what reading takes),
`profile_views` and `leaves` (what is known of what is read), `cost_table` and `explain` (what a
plan reads, keeps and leaves out), `left_out` (what a merge leaves out of its models), `measured`
(what is asked of the engine before a plan is frozen).

What comes in: lines of plans, profiles, encodings of blocks. What goes out: bytes, shares, words.

What never happens here: nothing is chosen (`planner`), and no block is read (`engine`).
"""
