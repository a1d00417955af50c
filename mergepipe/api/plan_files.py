"""Plans as files: to be looked at, approved and carried out elsewhere (docs/format-merge.md)."""

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mergepipe.api import asked
from mergepipe.api.asked import Asked
from mergepipe.errors import MalformedFile, MissingObject, NewerFormat, UsageError
from mergepipe.ids import ObjectId, object_id
from mergepipe.names import quoted
from mergepipe.objects.encoding import decode, encode

if TYPE_CHECKING:
    from mergepipe.api.planning import Planned, Planning
    from mergepipe.objects.merging import Plan

_FORMAT = "mergepipe plan"
_VERSION = 1
_MOST_BYTES = 1 << 30


class PlanFile(msgspec.Struct, frozen=True):
    """A plan file. `object`: the plan's canonical bytes in base64, of which `plan` is the id."""

    format: str
    version: int
    plan: str
    object: str
    asked: Asked


def write_plan(planning: "Planning", planned: "Planned", path: Path) -> ObjectId:
    """Write a plan, and what it was asked for with, to a file. Returns its id."""
    canonical = encode(planning.load_plan(planned))
    identity = object_id(canonical)
    said = planning.asked(planned)
    text = PlanFile(_FORMAT, _VERSION, identity.hex(), base64.b64encode(canonical).decode(), said)
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(text), indent=2) + b"\n")
    except OSError as error:
        raise UsageError(
            f"{quoted(str(path))} cannot be written: {error.strerror}", "name another file"
        ) from error
    return identity


def read_plan(planning: "Planning", path: Path) -> "tuple[ObjectId, Plan]":
    """Take in a plan from a file, and store it.

    Raises MalformedFile for a file that is no plan or was changed, NewerFormat, MissingObject for
    what it needs and is not here.
    """
    from mergepipe.objects.merging import Plan
    from mergepipe.plans.models import require_models

    where = quoted(str(path))
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise MalformedFile(f"{where} is no plan: it is too large")
        file = msgspec.json.decode(path.read_bytes(), type=PlanFile)
        canonical = base64.b64decode(file.object, validate=True)
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, binascii.Error) as error:
        raise MalformedFile(f"{where} is no plan: {error}", "mp plan --out writes one") from error
    if file.format != _FORMAT:
        raise MalformedFile(f"{where} is no plan, but {quoted(file.format)}")
    if file.version != _VERSION:
        raise NewerFormat(f"{where} was written by a later release", "install a newer mergepipe")
    identity = object_id(canonical)
    if identity.hex() != file.plan:
        raise MalformedFile(f"{where} was changed: its bytes are not those of plan {file.plan}")
    plan = decode(canonical, Plan, str(path))
    objects = planning.objects
    require_models(plan, objects)
    for profile in plan.profiles:
        if not objects.has(profile.profile):
            model, base = (plan.models[place].hex()[:12] for place in (profile.model, profile.base))
            raise MissingObject(
                f"the profile of {model} against {base}, which the plan needs, is not here",
                f"mp analyze {model} --base {base} makes it, the same as it was",
            )
    planning.store_plan(plan)
    asked.remember(planning.storage, identity, file.asked)
    return identity, plan
