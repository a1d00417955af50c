"""The documents of a recipe, each after those it takes in."""

from collections.abc import Collection, Sequence

from mergepipe.names import quoted
from mergepipe.planner.mergekit.fields import Notes
from mergepipe.planner.mergekit.schema import Stage


def in_order(stages: Sequence[Stage], notes: Notes) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """Stages in an order they can be made in, the output last; and those it does not need, by name.

    The output is the document without a name, or else the last one. Raises UsageError: two without
    a name, two of one name, a cycle.
    """
    named: dict[str, Stage] = {}
    unnamed: Stage | None = None
    for stage in stages:
        if stage.name is None:
            if unnamed is not None:
                raise notes.refused(
                    stage.place, "a second document has no name", "only the result may have none"
                )
            unnamed = stage
        elif stage.name in named:
            raise notes.refused(
                stage.place, f"a second document is called {quoted(stage.name)}", "rename one"
            )
        else:
            named[stage.name] = stage
    output = stages[-1] if unnamed is None else unnamed
    ordered = _after_those_it_needs(output, named, notes)
    taken = {stage.name for stage in ordered}
    return ordered, tuple(stage.name or "" for stage in stages if stage.name not in taken)


def _after_those_it_needs(
    output: Stage, named: dict[str, Stage], notes: Notes
) -> tuple[Stage, ...]:
    done: dict[str | None, Stage] = {}
    # Not recursive: a hostile file may chain thousands of documents.
    open_stages: list[tuple[Stage, list[Stage]]] = [(output, needed(output, named))]
    open_names = {output.name}
    while open_stages:
        stage, waiting = open_stages[-1]
        if not waiting:
            done[stage.name] = stage
            open_names.discard(stage.name)
            open_stages.pop()
            continue
        below = waiting.pop(0)
        if below.name in open_names:
            circle = " -> ".join(
                quoted(above.name or "the result") for above, _ in [*open_stages, (below, [])]
            )
            raise notes.refused(stage.place, f"the stages go in a circle: {circle}", "break it")
        if below.name not in done:
            open_names.add(below.name)
            open_stages.append((below, needed(below, named)))
    return tuple(done.values())


def stages_for(
    output: Stage, stages: Sequence[Stage], stored: Collection[str] = ()
) -> tuple[Stage, ...]:
    """The stages that one needs, itself last, of an ordered recipe; those that are stored are none.

    stored  names of stages whose results are models like any other
    """
    named = {stage.name: stage for stage in stages if stage.name and stage.name not in stored}
    wanted, waiting = {id(output)}, [output]
    while waiting:
        for below in needed(waiting.pop(), named):
            if id(below) not in wanted:
                wanted.add(id(below))
                waiting.append(below)
    return tuple(stage for stage in stages if id(stage) in wanted)


def needed(stage: Stage, named: dict[str, Stage]) -> list[Stage]:
    """The stages that one takes in, in the order it names them."""
    return [
        named[name] for name in dict.fromkeys(model.path for model in stage.models) if name in named
    ]
