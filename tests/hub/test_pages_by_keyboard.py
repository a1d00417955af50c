"""Pages of `mp serve` without a mouse, and on narrow screens."""

from collections.abc import Iterator

import pytest

from tests.hub.browser import Browser, browsing
from tests.hub.conftest import Served
from tests.hub.test_pages import zoo

__all__ = ["zoo"]
PAGES = (
    "/",
    "/-/zoo",
    "/-/zoo/model/merged",
    "/-/zoo/commit/merged",
    "/-/zoo/merge/merged",
    "/-/zoo/diff/base/law",
    "/-/zoo/log/merged",
    "/-/zoo/storage",
    "/-/zoo/model/nothing",
)
_TAKES_FOCUS = (
    "[...document.querySelectorAll('a[href], summary, button, input, select, [tabindex]')]"
)
_FOCUSED = "document.activeElement"
# What is outside of its parent, and cannot be scrolled to, cannot be read.
_TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(each => {
  for (let box = each; box !== document.body; box = box.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(box).overflowX)) return false;
  return each.getBoundingClientRect().right > innerWidth + 1;
}).map(each => each.outerHTML.slice(0, 100))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("page", PAGES)
def test_every_link_is_reached_by_tab_in_order_and_seen(
    zoo: Served, browser: Browser, page: str
) -> None:
    browser.resize(1600)
    browser.open(zoo.url + page)
    count = browser.evaluate(f"{_TAKES_FOCUS}.length")
    assert count > 0
    left = top = 0.0
    for number in range(count):
        browser.press("Tab")
        assert browser.evaluate(f"{_TAKES_FOCUS}.indexOf({_FOCUSED})") == number
        style = f"getComputedStyle({_FOCUSED})"
        assert browser.evaluate(f"{_FOCUSED}.matches(':focus-visible')")
        assert browser.evaluate(f"{style}.outlineStyle") != "none"
        assert float(browser.evaluate(f"parseFloat({style}.outlineWidth)")) >= 1
        box = f"{_FOCUSED}.getBoundingClientRect()"
        assert browser.evaluate(f"{box}.bottom > 0 && {box}.top < innerHeight")
        # As it is read: to the right or down, and never up and to the left.
        before = (left, top)
        left = float(browser.evaluate(f"{box}.left + scrollX"))
        top = float(browser.evaluate(f"{box}.top + scrollY"))
        assert left >= before[0] or top >= before[1]


def test_enter_leads_on_from_page_to_page(zoo: Served, browser: Browser) -> None:
    browser.complaints()
    browser.open(zoo.url + "/")
    for end in ("/-/zoo", "/model/merged", "/merge/merged"):
        for _ in range(browser.evaluate(f"{_TAKES_FOCUS}.length")):
            browser.press("Tab")
            link = browser.evaluate(f"{_FOCUSED}.getAttribute('href')") or ""
            if link.endswith(end):
                break
        assert browser.follow("Enter").endswith(end)
    assert browser.complaints() == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_cut_off_on_a_narrow_screen(zoo: Served, browser: Browser, page: str) -> None:
    for width in (320, 400, 1600):
        browser.resize(width)
        browser.open(zoo.url + page)
        assert browser.evaluate(_TOO_WIDE) == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
