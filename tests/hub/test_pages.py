"""Pages of `mp serve`: what people see in a browser, and what nobody's names can make of it."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pytest
from safetensors.numpy import save_file

from mergepipe.api import Repository
from mergepipe.hub.decoding import DecodedBlocks
from mergepipe.hub.files import Files
from mergepipe.hub.pages.addresses import Place
from mergepipe.hub.pages.differences import Differences
from mergepipe.hub.pages.rendering import render
from mergepipe.hub.pages.views import Views
from mergepipe.hub.repositories import Repositories
from tests.chromium import CHROMIUM, dumped
from tests.cli.conftest import ROOT
from tests.hub.conftest import WHO, Reply, Served, serving

EXPERTS = ("law", "math")
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[31m"
EVIL_BRANCH = "a\"'><b>&lt;$(id)%2F"
CARD = """---
license: "<script>alert(1)</script>"
---
# Law
A [paper](https://example.org/a?b=1&c="x"), [this](javascript:alert(1)), [that](data:text/html,x),
[relative](../../x), <a href="javascript:alert(1)" onclick=alert(1)>html</a> <!-- no comment
![logo](https://evil.example/x.png "t") <javascript:alert(1)> <https://example.org/b>

| task | score |
|---|---:|
| `bar`\u202e | 71.2 |

<div style="position:fixed">x</div>
"""


def _commit(
    repository: Repository,
    path: Path,
    tensors: dict[str, np.ndarray],
    base: str | None,
    *,
    branch: str | None = None,
    message: str = "",
    files: dict[str, str] | None = None,
) -> None:
    path.mkdir()
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    save_file(halves, path / "model.safetensors", {"format": "pt"})
    for name, text in (files or {}).items():
        (path / name).write_text(text, encoding="utf-8")
    said = message or f"Train {path.name}"
    repository.commit(path, branch=branch or path.name, message=said, base=base)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A base, two experts, their merge under a budget; one model that somebody hostile named."""
    root = tmp_path_factory.mktemp("pages")
    folder = root / "zoo"
    with Repository.init(folder, block_size=4096, who=WHO):
        pass
    source = np.random.default_rng(0)
    names = [f"model.layers.{n}.{part}.weight" for n in range(2) for part in ("q", "mlp.up")]
    base = {name: source.normal(0, 0.1, (96, 32)) for name in ["embed.weight", *names]}
    with Repository.open(folder, who="Eve \"'&amp;\u202e <e@example.org>") as zoo:
        _commit(zoo, root / "base", base, None)
        for seed, name in enumerate(EXPERTS, 1):
            own = np.random.default_rng(seed)
            tuned = {key: value + own.normal(0, 0.01, value.shape) for key, value in base.items()}
            _commit(zoo, root / name, tuned, "base", files={"README.md": CARD})
        plan = zoo.plan(base="base", experts=EXPERTS, budget="40%")
        zoo.merge(plan, branch="merged", message=f"Merge {EVIL}\n\nWhy: {EVIL}")
        _commit(
            zoo,
            root / "evil",
            {EVIL: np.ones((8, 8)), "embed.weight": np.ones((8, 8))},
            None,
            branch=EVIL_BRANCH,
            message=EVIL,
            files={"<b onclick=x>&\"'.json": "{}", "a%2F#?.txt": "all of it"},
        )
        zoo.note(EVIL_BRANCH, loss=EVIL.replace("\x1b", ""))
    with serving(folder) as served:
        yield served


class _Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] and self.elements[-1][0] != "style":
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.text += " " if tag in ("td", "th", "dt", "dd") else ""

    @property
    def links(self) -> list[str]:
        """Where it leads to."""
        return [attrs["href"] for tag, attrs in self.elements if tag == "a" and "href" in attrs]


def page(served: Served, path: str) -> _Page:
    reply = served.ask(path, headers=HTML)
    assert reply.status == 200, reply.body.decode()
    return checked(reply)


def checked(reply: Reply) -> _Page:
    """A page that asks nobody for anything, and in which nothing runs."""
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy
    assert "unsafe" not in policy
    text = reply.body.decode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text)
    assert not re.search(r"url\((?!#)|@import|<!--", text)
    shown = _Page(text)
    for tag, attributes in shown.elements:
        assert tag not in ("script", "img", "iframe", "object", "embed", "base"), tag
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("href", "src", "action", "xlink:href"):
            leads = attributes.get(name, "/")
            assert re.match(r"/(?!/)|#|https?://example\.org/|data:,$", leads), leads
    return shown


def test_every_page_is_reached_and_nothing_in_it_runs(zoo: Served) -> None:
    seen, waiting = set[str](), ["/"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if "/resolve/" in path:
            assert zoo.ask(path, "HEAD", headers=HTML).status == 200
            continue
        shown = page(zoo, path)
        waiting += [link for link in shown.links if link.startswith("/")]
        assert ("a", {"class": "home", "href": "/"}) in shown.elements
    kinds = {path.split("/")[3] for path in seen if path.count("/") > 2 and path[1] == "-"}
    assert kinds == {"model", "commit", "merge", "log", "diff", "storage"}
    assert any("/resolve/" in path for path in seen)
    assert f"/-/zoo/model/{quote(EVIL_BRANCH, safe='')}" in seen


def test_what_the_pages_of_a_model_say(zoo: Served) -> None:
    assert {"law", "merged"} <= set(page(zoo, "/").text.split())
    shown = page(zoo, "/-/zoo/model/law")
    assert "hf download zoo/law" in shown.text
    assert "https://example.org/b" in shown.links
    assert "[picture: logo]" in shown.text
    assert "<div style=" in shown.text
    with Repository.open(zoo.folder) as repository:
        usage = repository.usage()
        [cost] = [model for model in usage.models if model.rev == "law"]
        tip = repository.resolve("law").hex()
        difference = repository.diff("base", "law")
    from mergepipe.sizes import format_size

    assert format_size(cost.exclusive_bytes) in shown.text
    [readme] = [link for link in shown.links if link.endswith("/README.md")]
    assert readme == f"/zoo/resolve/{tip[:40]}/README.md"
    assert zoo.ask(readme).body.decode() == CARD
    compared = page(zoo, "/-/zoo/diff?a=base&b=law")
    for tensor in difference.tensors:
        assert f"{tensor.relative_l2:.4g}" in compared.text
    evil = page(zoo, f"/-/zoo/commit/{quote(EVIL_BRANCH, safe='')}")
    assert "<script>alert(1)</script>" in evil.text
    assert "\\u202e\\x1b[31m" in evil.text
    assert EVIL_BRANCH in evil.text


def test_a_merge_shows_its_manifest_and_pictures(zoo: Served) -> None:
    shown = page(zoo, "/-/zoo/merge/merged")
    with Repository.open(zoo.folder) as repository:
        explained, _, manifest = repository.explain("merged")
    assert manifest is not None
    assert manifest.hex() in shown.text
    assert f"{explained.costs.energy_kept:.1%}" in shown.text
    assert "mp replay" in shown.text
    drawn = [attributes for tag, attributes in shown.elements if tag == "svg"]
    assert len(drawn) == 13  # curve, bytes, lineage, maps of layers and of parts
    assert all("viewbox" in attributes for attributes in drawn)
    assert page(zoo, "/-/zoo/storage").text.count("freed without it") > 0


def test_history_is_drawn(zoo: Served) -> None:
    text = page(zoo, "/-/zoo/log/merged").text
    rows = text[text.index("*") :].splitlines()
    with Repository.open(zoo.folder) as repository:
        commits = [
            identity.hex()[:12] for identity, _ in repository.log("merged", topological=True)
        ]
    drawn = [found[0] for row in rows if (found := re.search(r"\b[0-9a-f]{12}\b", row))]
    assert drawn == commits
    assert rows[0].startswith("*-. ")
    assert rows[1].rstrip() == "|\\ \\"
    assert "No commit further back" in page(zoo, "/-/zoo/log/merged?after=100").text
    assert page(zoo, "/-/zoo/log?after=nonsense").text.count("Train law") == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/-/nosuch", 404),
        ("/-/zoo/nosuch", 404),
        ("/-/zoo/model", 404),
        ("/-/zoo/model/nosuch", 404),
        ("/-/zoo/model/%3Cscript%3Ealert(1)%3C%2Fscript%3E%1b%e2%80%ae", 404),
        ("/-/zoo/merge/law", 404),
        ("/-/zoo/diff?a=base", 404),
        ("/-/zoo/diff/base/..%2F..", 404),
        ("/-/../../etc/passwd", 404),
        ("/-/zoo/log/law..", 404),
        ("/-/v1/model/law", 404),
    ],
)
def test_errors_are_pages(zoo: Served, path: str, status: int) -> None:
    reply = zoo.ask(path, headers=HTML)
    assert reply.status == status, reply.body
    shown = checked(reply).text
    assert "All models" in shown
    assert "\\nhint" not in shown


def test_what_is_not_for_people_stays_as_it_was(zoo: Served) -> None:
    assert zoo.ask("/").status == 404
    assert zoo.ask("/zoo/law").headers["x-error-code"] == "EntryNotFound"
    assert zoo.ask("/api/models/zoo/law", headers=HTML).document["id"] == "zoo/law"
    reply = zoo.ask("/zoo/law", headers=HTML)
    assert (reply.status, reply.headers["location"]) == (303, "/-/zoo/model/law")
    assert zoo.ask("/-/zoo", "POST", headers=HTML).status == 405
    assert zoo.ask("/-/zoo", headers={**HTML, "Origin": "https://evil.example"}).status == 403
    assert zoo.ask("/", headers={**HTML, "Host": "evil.example"}).status == 403


def test_a_browser_gives_the_token_as_a_password(zoo: Served) -> None:
    token = "read-0123456789abcdef"

    def basic(password: str) -> dict[str, str]:
        pair = base64.b64encode(f"anybody:{password}".encode()).decode()
        return HTML | {"Authorization": f"Basic {pair}"}

    scopes = {"MP_SERVE_TOKENS": f"read {token},write write-0123456789abcdef"}
    with serving(zoo.folder, environment=scopes) as served:
        refused = served.ask("/-/zoo/model/law", headers=HTML)
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith('Basic realm="mergepipe"')
        assert "law" not in checked(refused).text
        assert served.ask("/", headers=basic("wrong")).status == 401
        assert served.ask("/", headers=HTML | {"Authorization": "Basic %%%"}).status == 401
        file = "/zoo/resolve/law/README.md"
        for headers in (basic(token), HTML | {"Authorization": f"Bearer {token}"}):
            assert served.ask("/-/zoo/model/law", headers=headers).status == 200
            assert served.ask(file, headers=headers).body.decode() == CARD
        # What a browser sends along by itself writes nothing, and is no token elsewhere.
        writes = basic("write-0123456789abcdef")
        assert served.ask("/api/repos/create", "POST", writes, b"{}").status == 401
        assert served.ask("/api/models", headers=writes).status == 401


def test_pictures_of_a_large_merge_are_drawn_when_asked_for(zoo: Served) -> None:
    place = Place("zoo", "merge", ("merged",))
    with Repositories(Repository.open) as repositories:
        repositories.add(Repository.open(zoo.folder))
        views = Views(repositories, Files(DecodedBlocks()), at_once=5)
        template, values = views.of(place, {}, zoo.url)
        assert len(values["pictures"]) == 8
        assert values["details"] == []
        [ask] = [
            link
            for link in _Page(render(template, place=place, **values)).links
            if link.endswith("?pictures#parts")
        ]
        assert len(views.of(place, {"pictures": ""}, zoo.url)[1]["details"]) == 5
    assert page(zoo, ask.partition("#")[0]).elements.count(("h2", {"id": "parts"})) == 1


def test_without_what_draws_there_are_numbers(zoo: Served, tmp_path: Path) -> None:
    for missing in ("altair", "jinja2"):
        (tmp_path / missing).mkdir()
        (tmp_path / missing / f"{missing}.py").write_text(
            f"raise ModuleNotFoundError('not here', name={missing!r})"
        )

    def without(missing: str) -> AbstractContextManager[Served]:
        return serving(zoo.folder, environment={"PYTHONPATH": f"{tmp_path / missing}:{ROOT}"})

    with without("altair") as served:
        shown = page(served, "/-/zoo/merge/merged")
        assert "pip install 'mergepipe[report]'" in shown.text
        assert "Energy kept" in shown.text
    with without("jinja2") as served:
        reply = served.ask("/", headers=HTML)
        assert reply.status == 501
        assert "pip install 'mergepipe[http]'" in reply.body.decode()
        assert served.ask("/api/models").status == 200


def test_what_is_large_is_left_to_the_command(zoo: Served) -> None:
    with Repository.open(zoo.folder) as repository:
        tips = [repository.resolve(name) for name in ("base", "law")]
        small = Differences(Files(DecodedBlocks()), most_bytes=1000).of(repository, *tips)
    assert small.tensors is None
    assert small.differing == small.total == 5
    assert [file.path for file in small.files] == ["README.md", "model.safetensors"]
    shown = render(
        "difference.html",
        place=Place("zoo", "diff", ("base", "law")),
        a="base",
        b="law",
        found=small,
        most=1,
        command="mp diff base law",
    )
    assert "mp diff base law" in shown


def _browse(address: str, folder: Path) -> tuple[str, str, list[str]]:
    """A page as a browser without a window has it, its complaints, and what else it loaded."""
    log = folder / "requests.json"
    done = dumped(address, folder, f"--log-net-log={log}")
    if done.returncode:
        pytest.skip("Chromium does not run here")
    events = json.loads(log.read_text())["events"]
    asked = [event["params"] for event in events if "url" in event.get("params", {})]
    # The browser has errands of its own; those of a page have the page's origin as initiator.
    origin = address[: address.index("/", len("http://"))]
    own = [each["url"] for each in asked if each.get("initiator") == origin]
    return done.stdout, done.stderr, own


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_walks_through_without_complaint(zoo: Served, tmp_path: Path) -> None:
    path = "/"
    figures = []
    for wanted in ("/model/merged", "/merge/merged", "/storage", None):
        document, complaints, asked = _browse(zoo.url + path, tmp_path / "browser")
        assert "CONSOLE" not in complaints, complaints
        assert asked == []
        figures.append(document.count("<svg"))
        if wanted is not None:
            path = next(link for link in _Page(document).links if unquote(link).endswith(wanted))
    assert figures == [0, 0, 13, 1]
