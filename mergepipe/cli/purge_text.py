"""What a purge did, as text: on the terminal in few lines, in the report to sign in all."""

import hashlib
from collections.abc import Iterator, Sequence

from mergepipe.cli.text import count
from mergepipe.names import quoted
from mergepipe.repository.purge_report import PurgeReport
from mergepipe.repository.refnames import short_name
from mergepipe.repository.tombstones import day_of
from mergepipe.sizes import format_size

_ID = 12


def summary(report: PurgeReport) -> Iterator[str]:
    """What went, or would, of one repository."""
    verb = "Would purge" if report.dry_run else "Purged"
    models = len({each.snapshot for each in report.commits})
    yield (
        f"{verb} {count(models, 'model')} of {count(len(report.commits), 'commit')} at "
        f"{report.where}: {count(report.own_blocks, 'block')} of their own, "
        f"{format_size(report.own_stored_bytes)} in {count(len(report.packs), 'pack')}"
    )
    for each in report.commits:
        yield f"  {each.commit[:_ID]} {each.message}"
    for ref in report.refs:
        went = "is removed" if ref.new is None else f"goes back to {ref.new[:_ID]}"
        yield f"  {short_name(ref.name)} {went}"
    if report.reencoded_blocks:
        yield (
            f"  {count(report.reencoded_blocks, 'block')} of other models leaned on them: stored "
            f"again"
            + (f", {format_size(report.reencoded_bytes)}" if report.reencoded_bytes else "")
        )
    for other in report.shared:
        why = "was merged of it and " if other.merged else ""
        yield (
            f"  {other.commit[:_ID]} {other.message} {why}keeps {count(other.blocks, 'block')} "
            f"that it has too, {format_size(other.raw_bytes)}"
        )
    for each in report.merges:
        yield f"  {each.commit[:_ID]} {each.message} was merged of it: its manifest keeps the ids"


def warnings(report: PurgeReport) -> Iterator[str]:
    """Where the model still is, as far as is known."""
    if report.worktree:
        yield (
            f"the files beside {report.where}/.mergepipe are still the model's: mp checkout another"
        )
    for remote in report.remotes:
        yield f"{remote} had it when it was last seen: mp purge --remote {remote}"


def statement(reports: Sequence[PurgeReport], document: bytes) -> str:
    """The report to sign. `document` is the JSON that lies beside it, with every id."""
    lines = ["Removal of models", ""]
    for report in reports:
        lines += [*_facts(report), ""]
    lines += [
        "Every id stands in the JSON document of this report, of which the SHA-256 is",
        hashlib.sha256(document).hexdigest(),
        "",
        "Name, date and signature: ________________________________________",
        "",
    ]
    return "\n".join(lines)


def _facts(report: PurgeReport) -> Iterator[str]:
    done = "Nothing was removed yet: a dry run" if report.dry_run else "Removed"
    yield f"{report.where}"
    yield f"  {done} on {day_of(report.time)} by {report.who}: {report.reason or 'no reason given'}"
    for each in report.commits:
        yield f"  commit {each.commit}"
        yield f"    model {each.snapshot}  {quoted(each.message)}"
    yield (
        f"  Of {report.tensors:,} tensors, {report.blocks:,} blocks, {report.raw_bytes:,} bytes: "
        f"{report.own_blocks:,} blocks, {report.own_raw_bytes:,} bytes were theirs alone, and "
        f"took {report.own_stored_bytes:,} bytes in packs"
    )
    for pack in report.packs:
        yield f"  pack {pack}"
    yield f"  Statistics removed: {len(report.profiles)}; notes of merges: {len(report.runs)}"
    for key in report.leftovers:
        yield f"  beside the packs: {key}"
    for ref in report.refs:
        went = "removed" if ref.new is None else f"back to {ref.new}"
        yield f"  {ref.name}: {went}"
    yield (
        f"  Stored again, as they leaned on what went: {report.reencoded_blocks:,} blocks, "
        f"{report.reencoded_bytes:,} bytes"
    )
    yield "  Kept, because others have it too:" if report.shared else "  Nothing was shared."
    for other in report.shared:
        how = "merged of it" if other.merged else "has the same blocks"
        yield (
            f"    commit {other.commit} ({how}): {other.blocks:,} blocks, "
            f"{other.raw_bytes:,} bytes  {quoted(other.message)}"
        )
    for each in report.merges:
        yield f"  made of it, its manifest keeps the ids: commit {each.commit}"
    yield from (f"  Still to do: {warning}" for warning in warnings(report))
