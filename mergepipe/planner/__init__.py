"""From a recipe and a budget to a plan: how deep each block of each input is read.

Who lives here: `recipe` and `inputs` (a simple recipe, spelled out), `mergekit/` (theirs), both to
`lines`; `prepared` and `checking` (what can be known at once), `drafts` and `roots` (and from
profiles); `budget`, `budget_choice` and `selection`
over `gains` and `coverage` (what to read); `resolution`, `elections`
and `estimation` (a method's numbers); `build` (all of it), `verdict` and `curve` (what speaks
against a plan, and what more would buy). `planner` is the door.

What comes in: revisions, a method, parameters, profiles. What goes out: a `Plan` and what it costs.

What never happens here: no weight is read, no torch is loaded; what must be measured is asked of
whoever plans (`plans.measured`). What a plan then means is for `plans` to say: no engine is known.
"""
