"""Reports: pages show what the repository says, in one file that asks nobody for anything."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from mergepipe import Repository
from mergepipe.cli.main import main
from mergepipe.report.gathering import place_of, report_of
from mergepipe.report.page import page
from mergepipe.report.values import Cell, CurvePoint, Fact, Model, Report
from tests.chromium import CHROMIUM, dumped

EXPERTS = ("law", "math")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A base, two experts and their merge under a budget, on `merged`."""
    with Repository.init(tmp_path / "repository", block_size=4096):
        pass
    repository = Repository.open(tmp_path / "repository")
    source = np.random.default_rng(0)
    shape = (96, 64)
    names = [f"model.layers.{n}.{part}.weight" for n in range(3) for part in ("q", "mlp.up")]
    base = {name: source.normal(0, 0.1, shape) for name in ["embed.weight", *names]}
    _commit(repository, tmp_path / "base", base, None)
    for seed, name in enumerate(EXPERTS, 1):
        own = np.random.default_rng(seed)
        tuned = {key: value + own.normal(0, 0.01, shape) for key, value in base.items()}
        _commit(repository, tmp_path / name, tuned, "base")
    plan = repository.plan(base="base", experts=EXPERTS, budget="40%")
    repository.merge(plan, branch="merged", message="First merge </script><b>")
    return repository


def _commit(
    repository: Repository, path: Path, tensors: dict[str, np.ndarray], base: str | None
) -> None:
    path.mkdir()
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    save_file(halves, path / "model.safetensors", {"format": "pt"})
    repository.commit(path, branch=path.name, message=path.name, base=base)


class _Page(HTMLParser):
    """What a page refers to, its elements, and the text of its cells and titles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_report_of_a_merge(repository: Repository) -> None:
    report = report_of(repository, "merged")
    explained, _, _ = repository.explain("merged")
    assert report.kind == "merge"
    assert [model.name for model in report.models if model.role == "expert"] == list(EXPERTS)
    assert report.chosen is not None
    assert report.chosen.bytes == explained.costs.expert_bytes_planned
    kept = [point.energy_kept for point in report.curve]
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(1.0)
    assert report.curve[-1].bytes == pytest.approx(explained.costs.expert_bytes_full, rel=0.01)
    # No plan keeps more than the curve at its bytes says can be kept.
    least = min(point.energy_kept for point in report.curve if point.bytes >= report.chosen.bytes)
    assert report.chosen.energy_kept <= least + 1e-6
    assert sum(cell.energy or 0.0 for cell in report.cells) == pytest.approx(1.0, rel=1e-4)
    assert {cell.layer for cell in report.cells} == {None, 0, 1, 2}
    assert {commit.names for commit in report.lineage} >= {("merged",), ("base",), ("law",)}


def test_its_page_shows_its_numbers_and_asks_nobody(repository: Repository) -> None:
    report = report_of(repository, "merged")
    text = page(report)
    shown = _Page(text)
    assert shown.elements.count("svg") == 13
    assert "What a budget buys" in shown.texts
    assert any(f"{report.curve[3].energy_kept:.1%}" == each for each in shown.texts)
    cell = report.cells[2]
    hover = f"{cell.layer} {cell.part}: {100 * cell.read:.3g}%"
    assert hover in shown.texts
    assert all(link.startswith("#") for link in shown.links)
    assert not re.search(r"url\((?!#)|@import|<link|<img", text)
    assert shown.elements.count("script") == 1  # the data, which no browser runs
    assert "</script><b>" not in text
    data = re.search(r'id="report-data">(.*?)</script>', text, re.S)
    assert data is not None
    assert msgspec.json.decode(data[1], type=Report) == report


def test_plans_differences_and_repositories(repository: Repository) -> None:
    plan = repository.plan(base="base", experts=EXPERTS, budget="20%")
    identity = repository.store_plan(plan)
    of_plan = report_of(repository, identity.hex())
    assert (of_plan.kind, of_plan.chosen is None) == ("plan", False)
    of_change = report_of(repository, "base..law")
    assert of_change.kind == "difference"
    assert of_change.tensors[0].moved == pytest.approx(0.1, rel=0.1)
    whole = report_of(repository, None)
    assert {one.name for one in whole.storage} >= {"base", "law", "math", "merged"}
    for report in (of_plan, of_change, whole):
        assert "<svg" in page(report) or report.kind == "difference"


def test_the_command(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path / "repository")
    assert main(["report", "merged", "--out", "page.html"]) == 0
    assert "page.html: Merge of law, math" in capfd.readouterr().out
    assert Path("page.html").read_text("utf-8").startswith("<!doctype html>")
    assert main(["report", "merged", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["kind"] == "merge"
    assert main(["report", "law"]) == 13
    assert "mp report 'law~1..law'" in capfd.readouterr().err
    assert main(["report", "nosuch"]) == 1
    assert main(["report", "merged", "--out", "."]) == 2
    assert main(["report", "merged", "--out", "nowhere/page.html"]) == 2


def test_names_are_text_wherever_they_stand(repository: Repository, tmp_path: Path) -> None:
    shape = (8, 8)
    name = "\x1b[31m\u202e<!--<script>&\n"
    _commit(repository, tmp_path / "$(id)", {name: np.ones(shape)}, None)
    _commit(repository, tmp_path / "odd", {name: np.zeros(shape)}, None)
    report = report_of(repository, "$(id)..odd")
    assert report.commands == ("mp diff '$(id)' odd",)
    text = page(report)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("<!--") == 0
    assert "script" not in _Page(text.partition('<script type="application/json"')[0]).elements


def test_eighty_layers_and_eight_experts_fit_in_five_megabytes() -> None:
    parts = ("q", "k", "v", "o", "gate", "up", "down")
    cells = [
        Cell(
            f"expert-{e}", f"model.layers.{n}.{part}.weight", n, part, 1e-4 * n, 0.1, 0.5, "coarse"
        )
        for e in range(8)
        for n in range(80)
        for part in parts
    ]
    models = [Model(f"expert-{e}", "expert", None, "0" * 64, 9, 8, 7, 0.5) for e in range(8)]
    report = Report(
        "plan",
        "Large",
        (Fact("method", "ties"),),
        ("mp plan",),
        models=tuple(models),
        cells=tuple(cells),
        curve=(CurvePoint(1, 0.1), CurvePoint(10, 1.0)),
    )
    assert len(page(report).encode()) < 5_000_000


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.12.self_attn.q_proj.weight", (12, "self_attn.q_proj")),
        ("transformer.h.3.mlp.c_fc.bias", (3, "mlp.c_fc.bias")),
        ("model.embed_tokens.weight", (None, "model.embed_tokens.weight")),
    ],
)
def test_layers_are_read_off_names(name: str, place: tuple[int | None, str]) -> None:
    assert place_of(name) == place


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_without_complaint(repository: Repository, tmp_path: Path) -> None:
    if dumped("about:blank", tmp_path / "empty").returncode:
        pytest.skip("Chromium does not run here")
    path = tmp_path / "page.html"
    path.write_text(page(report_of(repository, "merged")), encoding="utf-8")
    done = dumped(path.as_uri(), tmp_path / "browser")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<svg") == 13
    assert "CONSOLE" not in done.stderr, done.stderr
