"""What was measured of models, as files say it and as notes do."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mergepipe import Repository
from mergepipe.errors import RevisionNotFound, UsageError
from mergepipe.report.gathering import report_of
from mergepipe.report.metrics import read_metrics
from mergepipe.report.page import page
from mergepipe.report.values import Metric


@pytest.mark.parametrize(
    "text",
    [
        '{"base": {"loss": 2.5}, "code": {"loss": 1.25}}',
        '[{"model": "base", "loss": 2.5}, {"model": "code", "loss": 1.25}]',
        '{"revision": "base", "loss": 2.5}\n{"revision": "code", "loss": 1.25}\n',
        "\ufeffrevision,loss,by\nbase,2.5,us\ncode,1.25,\n",
    ],
)
def test_every_form_says_the_same(text: str, tmp_path: Path) -> None:
    path = tmp_path / "losses"
    path.write_text(text, encoding="utf-8")
    assert read_metrics(path) == [
        Metric("base", "loss", 2.5, "losses"),
        Metric("code", "loss", 1.25, "losses"),
    ]


@pytest.mark.parametrize("data", [b"", b"{", b"loss\n2.5\n", b'{"base": {"loss": "nan"}}', b"\xff"])
def test_what_says_nothing_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        read_metrics(path)
    assert "revision" in (refused.value.hint or "")
    with pytest.raises(UsageError, match="cannot read"):
        read_metrics(tmp_path)


def test_reports_show_files_and_notes(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "repository") as repository:
        (tmp_path / "model").mkdir()
        for seed, name in enumerate(("base", "code")):
            weights = {"w": np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)}
            save_file(weights, tmp_path / "model/model.safetensors")
            repository.commit(tmp_path / "model", branch=name, message=name)
        repository.note("code", loss=1.5, by="ada")
        given = [Metric("base", "loss", 2.5, "losses.json")]
        report = report_of(repository, None, given)
        assert report.metrics == (*given, Metric("code", "loss", 1.5, "note"))
        shown = page(report)
        assert "Measured: loss" in shown
        assert "losses.json" in shown
        assert [each.raw_bytes for each in report.growth] == sorted(
            each.raw_bytes for each in report.growth
        )
        usage = repository.usage()
        assert report.growth[-1].raw_bytes == usage.raw_bytes
        assert report.growth[-1].stored_bytes == usage.stored_bytes
        with pytest.raises(RevisionNotFound):
            report_of(repository, None, [Metric("nobody", "loss", 2.5, "losses.json")])
