"""Which tests are asked whether they miss a check: by its kind and where it stands."""

from .sites import Site

_SYNCS = "tests/faults/test_syncs.py"
_UNTRUSTED = ("tests/bytestore/test_untrusted.py", "tests/repository/test_untrusted.py")
_LIMITS = "tests/limits"
_TESTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("fsync", "formats/writing.py", (f"{_SYNCS}::test_what_is_done_is_durable[switch]",)),
    ("fsync", "repository/layout.py", (f"{_SYNCS}::test_what_is_done_is_durable[init]",)),
    ("fsync", "lazy/", (_SYNCS, "tests/lazy/test_lazy.py")),
    ("fsync", "bytestore/untrusted.py", _UNTRUSTED),
    ("fsync", "repository/push_log.py", ("tests/transfer/test_push_log.py",)),
    ("fsync", "transfer/quarantine.py", (f"{_SYNCS}::test_what_is_done_is_durable[push]",)),
    ("fsync", "bytestore/local", (f"{_SYNCS}::test_what_is_done_is_durable[commit]", _SYNCS)),
    ("fsync", "repository/reflog.py", (f"{_SYNCS}::test_what_is_done_is_durable[commit]", _SYNCS)),
    ("fsync", "", (_SYNCS,)),
    (
        "limit",
        "transfer/",
        (_LIMITS, "tests/transfer/test_hostile.py", "tests/transfer/test_quarantine.py"),
    ),
    ("limit", "lazy/", (_LIMITS, "tests/lazy")),
    ("limit", "bytestore/", (_LIMITS, "tests/bytestore")),
    ("limit", "packs/", (_LIMITS, "tests/packs", "tests/fuzz")),
    ("limit", "objects/", ("tests/objects",)),
    (
        "limit",
        "repository/",
        (_LIMITS, "tests/repository/test_config.py", "tests/cli/test_notes.py"),
    ),
    ("limit", "formats/", (_LIMITS, "tests/formats")),
    ("limit", "vocabularies/", (_LIMITS, "tests/vocabularies")),
    ("limit", "api/", (_LIMITS, "tests/cli/test_identity.py")),
    ("limit", "executors/", (_LIMITS,)),
    ("link", "formats/tree.py", ("tests/formats/test_tree.py",)),
    ("link", "formats/writing.py", ("tests/formats/test_writing.py",)),
    ("link", "checkpoints/", ("tests/formats/test_writing.py", "tests/properties")),
    ("link", "packs/", ("tests/repository/test_readers.py", *_UNTRUSTED)),
    ("link", "repository/layout.py", (*_UNTRUSTED, "tests/repository/test_layout.py")),
    ("link", "api/", (*_UNTRUSTED, "tests/checkpoints")),
    ("link", "bytestore/sharing.py", ("tests/repository/test_sharing.py",)),
    ("link", "bytestore/unfinished.py", ("tests/bytestore/test_unfinished.py", *_UNTRUSTED)),
    ("link", "", _UNTRUSTED),
    ("", "lazy/", ("tests/lazy", "tests/transfer/test_lazy_clone.py")),
    (
        "hash",
        "packs/",
        (
            "tests/packs/test_packs.py",
            "tests/packs/test_blocks.py",
            "tests/repository/test_healing.py",
            "tests/repository/test_fsck.py",
            "tests/torture/test_pack_damage.py",
        ),
    ),
    ("hash", "objects/", ("tests/objects", "tests/torture/test_pack_damage.py")),
    ("hash", "repository/", ("tests/repository/test_gc.py", "tests/repository/test_gc_faults.py")),
    (
        "hash",
        "checkpoints/",
        ("tests/cli/test_verify.py", "tests/checkpoints", "tests/repository/test_healing.py"),
    ),
    ("hash", "engine/estimates.py", ("tests/engine/test_estimates.py",)),
    ("hash", "engine/", ("tests/engine/test_publication.py", "tests/engine/test_partial_sums.py")),
    ("hash", "hub/passes.py", ("tests/limits/test_transfers.py",)),
    ("hash", "transfer/serving/", ("tests/transfer/test_serving_http.py",)),
    ("hash", "transfer/healing.py", ("tests/repository/test_healing.py", "tests/transfer")),
    (
        "",
        "transfer/quarantine.py",
        ("tests/transfer/test_quarantine.py", "tests/transfer/test_hostile.py"),
    ),
    ("limit", "transfer/serving/stdio.py", ("tests/transfer/test_serving_stdio.py",)),
    (
        "limit",
        "transfer/serving/",
        (_LIMITS, "tests/transfer/test_serving_http.py", "tests/transfer/test_receiving.py"),
    ),
    (
        "",
        "transfer/",
        (
            "tests/transfer/test_hostile.py",
            "tests/transfer/test_hostile_servers.py",
            "tests/transfer/test_urls.py",
            "tests/transfer/test_quarantine.py",
            "tests/transfer/test_receiving.py",
            "tests/transfer/test_fetch.py",
            "tests/transfer/test_push.py",
            "tests/transfer/test_holdings.py",
        ),
    ),
    ("", "hub/", ("tests/hub",)),
    ("", "objects/", ("tests/objects",)),
    ("", "formats/", ("tests/formats",)),
    ("", "packs/", ("tests/packs", "tests/fuzz", "tests/repository/test_fsck.py")),
    ("", "bytestore/", ("tests/bytestore",)),
    ("", "vocabularies/", ("tests/vocabularies",)),
    ("", "repository/", ("tests/repository", "tests/cli/test_notes.py")),
    ("", "engine/", ("tests/engine",)),
    ("", "codecs/", ("tests/codecs",)),
    ("", "executors/", ("tests/executors/test_processes.py",)),
    ("", "api/", ("tests/cli/test_identity.py", "tests/cli/test_plan_files.py")),
    ("", "", ("tests/cli", "tests/planner")),
)


def asked_of(site: Site) -> tuple[str, ...]:
    """Paths and node ids for pytest, the likeliest first."""
    return next(
        tests
        for kind, place, tests in _TESTS
        if kind in ("", site.kind) and site.file.startswith(place)
    )
