"""What was measured of models, held-out loss most of all: of files, and of notes on commits."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from mergepipe.api import Repository
from mergepipe.errors import UsageError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.report.values import Metric

_REVISION = ("revision", "model", "rev", "name")
_FORMS = (
    'write JSON, {"REV": {"loss": 2.1}} or a list or lines of {"revision": "REV", "loss": 2.1}; '
    "or CSV, a column revision and one for each number"
)


def read_metrics(path: Path) -> list[Metric]:
    """The numbers that a file of JSON or CSV has of revisions, in its order.

    Raises UsageError for one that is neither, or says nothing of any revision.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UsageError(f"cannot read {quoted(str(path))}: {reason}", _FORMS) from None
    rows = (
        _json(text) if text.lstrip()[:1] in ("{", "[") else list(csv.DictReader(io.StringIO(text)))
    )
    metrics = [] if rows is None else [metric for row in rows for metric in _metrics(row, path)]
    if not metrics:
        raise UsageError(f"{quoted(str(path))} has no numbers of any revision", _FORMS)
    return metrics


def noted(repository: Repository, revisions: Sequence[tuple[str, ObjectId]]) -> Iterator[Metric]:
    """The numbers that notes say of commits (`mp note`), each called as given."""
    for name, commit in revisions:
        for key, remark in repository.notes(commit.hex()).items():
            if remark.number is not None:
                yield Metric(name, key, remark.number, "note")


def checked(repository: Repository, metrics: Sequence[Metric]) -> Sequence[Metric]:
    """The same metrics. Raises RevisionNotFound for a revision that is none."""
    for revision in dict.fromkeys(each.revision for each in metrics):
        repository.resolve(revision)
    return metrics


def _json(text: str) -> list[Mapping[str, object]] | None:
    """Rows of JSON in one of its forms; None where it is none."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        try:
            value = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
        except msgspec.DecodeError:
            return None
    if isinstance(value, dict):
        inner = list(value.values())
        if inner and all(isinstance(each, dict) for each in inner):
            return [{_REVISION[0]: revision, **fields} for revision, fields in value.items()]
        value = [value]
    return [row for row in value if isinstance(row, dict)]


def _metrics(row: Mapping[str, object], path: Path) -> Iterator[Metric]:
    key = next((name for name in _REVISION if isinstance(row.get(name), str)), None)
    if key is None:
        return
    for name, value in row.items():
        number = _number(value)
        if name != key and name is not None and number is not None:
            yield Metric(str(row[key]).strip(), str(name), number, path.name)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
