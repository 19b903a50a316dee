"""The page in a real browser; `SWARM_SCREENSHOTS=FOLDER` keeps pictures of it."""

from __future__ import annotations

import json

import pytest

from swarm.page import files
from swarm.page.service import serve
from tests.page import chromium
from tests.page.fake_source import FakeSource

PROGRAM = chromium.find()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=f"no browser: none of {', '.join(chromium.NAMES)}"),
]
IS_OPEN = "!document.getElementById('views').hidden"
SAYS = "document.getElementById('{}').textContent"


@pytest.fixture
async def opened(tmp_path, nursery):
    """A page that is served, and a tab."""
    source = FakeSource(tmp_path)
    page = await nursery.start(serve, source, tmp_path, 0)
    async with chromium.opened(PROGRAM, tmp_path / "profile") as tab:
        yield page, tab, source
    nursery.cancel_scope.cancel()


async def test_a_person_reads_the_page_in_a_browser(opened):
    page, tab, source = opened
    await tab.screen(1280, 900)
    await tab.call("Network.setCacheDisabled", cacheDisabled=True)

    # Without a link nobody is told anything.
    await tab.call("Page.navigate", url=page.address)
    await tab.until("!document.getElementById('door').hidden")
    assert not await tab.js(IS_OPEN)

    # A link lets the browser in, and its code does not stay in the address.
    link = page.link()
    await tab.call("Page.navigate", url=link)
    await tab.until(IS_OPEN)
    assert await tab.js("location.href") == page.address
    assert await tab.js("document.cookie") == ""
    await tab.until("document.querySelector('#curve .curve') !== null")
    await tab.until("document.querySelector('#peers-map .validator') !== null")
    await tab.until("document.querySelectorAll('#replicas .seat').length === 21")
    assert await tab.js(SAYS.format("state-word")) == "working"

    # What a node says is text, whatever it looks like.
    assert "<script>alert(1)</script>" in await tab.js(SAYS.format("problems"))
    assert await tab.js("document.querySelectorAll('main script').length") == 0

    # What costs tokens soon has its time, and what is held back its reason.
    assert "2 of 3 strikes (in 10 minutes)" in await tab.js(SAYS.format("problems"))
    assert "seal: not idle: 3 of 300 s" in await tab.js(SAYS.format("problems"))

    # It is small, with all that it asks for.
    transferred = await tab.js(
        "[...performance.getEntriesByType('resource'), performance.getEntriesByType('navigation')[0]]"
        ".reduce((sum, one) => sum + one.transferSize, 0)"
    )
    assert transferred < files.MAX_BYTES

    # News comes by itself.
    source.height = 5000
    await tab.until("document.getElementById('figures').textContent.includes('5,000')")

    # Training is held back and goes on.
    await tab.js("document.getElementById('pause').click()")
    await tab.until("document.getElementById('pause').textContent === 'Resume training'")
    assert source.held[0]["part"] == "train"
    await tab.js("document.getElementById('pause').click()")
    await tab.until("document.getElementById('pause').textContent === 'Pause training'")

    # Samples, of text and of pictures.
    for version in (5, 2):
        await tab.js(f"document.getElementById('draw-version').value = '{version}'")
        await tab.js("document.getElementById('draw').click()")
        await tab.until(f"document.querySelector('[aria-label=\"Version {version}\"]') !== null")
    assert "<b>ROMEO</b>" in await tab.js(SAYS.format("samples-body"))
    await tab.until("document.querySelector('#samples img').naturalWidth === 2")

    # The log is asked for when it is in sight.
    await tab.js("document.getElementById('log').scrollIntoView()")
    await tab.until("document.querySelectorAll('#log-table tbody tr').length === 40")

    # By keyboard: the first stop leads past the navigation.
    await tab.js("document.activeElement.blur(); scrollTo(0, 0)")
    await tab.press("Tab", 9)
    assert await tab.js("document.activeElement.className") == "skip"

    # Every plot has its words, every control its name, every table its titles, and no id stands twice.
    faults = await tab.js(f"({ACCESSIBLE})()")
    assert json.loads(faults) == []

    # Colours, widths and calm.
    await tab.js("document.activeElement.blur()")
    await tab.picture("light")
    await tab.screen(1280, 900, dark=True)
    assert await tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 19)"
    await tab.picture("dark")
    await tab.js("document.getElementById('theme').click()")
    assert await tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 249)"
    for width in (390, 320):
        await tab.screen(width, 844, dark=True, calm=True)
        await tab.until(f"document.documentElement.scrollWidth <= {width}")
        await tab.picture(f"phone-{width}")
    assert await tab.js("getComputedStyle(document.getElementById('dot')).animationName") == "none"

    # The link works once; a browser that was let in stays so, and may be forgotten.
    await tab.call("Page.reload")
    await tab.until(IS_OPEN)
    await tab.js("document.getElementById('forget').click()")
    await tab.until("!document.getElementById('door').hidden")
    await tab.call("Page.navigate", url="about:blank")
    await tab.call("Page.navigate", url=link)
    await tab.until("document.getElementById('door-why')?.textContent.includes('used already')")

    expected = {401, 403}
    others = [
        one for one in tab.complaints() if not any(str(code) in str(one) for code in expected)
    ]
    assert others == []


ACCESSIBLE = """() => {
  const faults = [];
  for (const one of document.querySelectorAll('svg[role=img]'))
    if (!one.getAttribute('aria-label')) faults.push('a plot without words');
  for (const one of document.querySelectorAll('button, select, input, a'))
    if (!(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)) faults.push(one.outerHTML);
  for (const one of document.querySelectorAll('select'))
    if (!one.labels.length) faults.push(one.outerHTML);
  for (const one of document.querySelectorAll('table'))
    if (one.rows.length && !one.querySelector('th[scope=col]')) faults.push(one.id);
  for (const one of document.querySelectorAll('img'))
    if (!one.alt) faults.push('a picture without words');
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice');
  for (const name of ['header', 'nav', 'main', 'footer', '[role=status]', 'h1'])
    if (!document.querySelector(name)) faults.push(name);
  return JSON.stringify(faults);
}"""
