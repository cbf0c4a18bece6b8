"""The built site, page by page, in a browser without a screen: ``make docs``.

Formulas and pictures show, the slider slides, no request leaves the host, no link leads nowhere.
"""

import functools
import http.server
import json
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

HTML = Path(__file__).parents[1] / "build" / "html"
READ = ("docs", "notebooks", "exercises", "build/api")
"""Folders whose pages are opened. Those of the code hold neither formulas nor pictures: only their links are tried."""

pytestmark = pytest.mark.site


class Page(HTMLParser):
    """What a page points to, and what can be pointed to in it."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors, self.is_text = [], set(), True
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.targets += [given[name] for name in ("href", "src") if given.get(name)]


@functools.cache
def page(path):
    return Page(path)


@pytest.fixture(scope="session")
def pages():
    found = sorted(HTML.rglob("*.html"))
    assert len(found) > 30, "the site is not built: make docs"
    return found


def read(pages):
    return [path for path in pages if path.relative_to(HTML).as_posix().startswith(READ)]


# Links


def test_no_link_leads_nowhere(pages):
    broken = []
    for path in pages:
        for target in page(path).targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = path if not parts.path else (path.parent / unquote(parts.path))
            if there.is_dir():
                there /= "index.html"
            if not there.exists():
                broken.append(f"{path.relative_to(HTML)}: {target}")
            elif (
                parts.fragment
                and there.suffix == ".html"
                and unquote(parts.fragment) not in page(there.resolve()).anchors
            ):
                broken.append(f"{path.relative_to(HTML)}: {target} (no such place in the page)")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages):
    """Links may lead out; scripts, styles, fonts and pictures may not be fetched from there."""
    loading = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=[\"'](?:https?:)?//[^\"']+", re.I)
    found = [f"{path.relative_to(HTML)}: {match}" for path in pages for match in loading.findall(path.read_text())]
    assert [one for one in found if 'rel="canonical"' not in one] == []


# In the browser


@pytest.fixture(scope="session")
def site():
    """The address of the site, served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    from selenium import webdriver

    chromium, driver = (
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    )
    assert chromium, "no browser to look at the pages with: on Debian, apt install chromium chromium-driver"
    assert driver, "no driver for the browser: on Debian, apt install chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    for flag in [*flags.split(), "--disable-sync", "--no-first-run", "--window-size=1280,1000"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()


FORMULAS_ARE_SET = """
const done = arguments[0];
const ready = window.MathJax && MathJax.startup && MathJax.startup.promise;
(ready || Promise.resolve()).then(() => setTimeout(done, 50), error => done(String(error)));
"""

STATE = """
document.querySelectorAll('img').forEach(i => i.loading = 'eager');
return {
  formulas: document.querySelectorAll('.math').length,
  set: document.querySelectorAll('.math mjx-container').length,
  wrong: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => e.textContent),
  pictures: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src.slice(0, 80)),
};
"""


def test_every_page_shows(pages, site, browser):
    """One after the other: formulas, pictures, no complaint in the console, no request to another host."""
    problems = []
    for path in read(pages):
        name = path.relative_to(HTML).as_posix()
        browser.get(f"{site}/{name}")
        browser.execute_async_script(FORMULAS_ARE_SET)
        state = browser.execute_script(STATE)
        if state["set"] < state["formulas"]:
            problems.append(f"{name}: {state['formulas'] - state['set']} of {state['formulas']} formulas are not set")
        problems += [f"{name}: formula {text}" for text in state["wrong"]]
        problems += [f"{name}: the picture {source} does not show" for source in state["pictures"]]
        problems += [f"{name}: asks for {url}" for url in requests(browser) if not url.startswith((site, "data:"))]
        problems += [f"{name}: {entry['message']}" for entry in browser.get_log("browser") if is_grave(entry)]
    assert problems == []


def requests(browser):
    """The addresses that were asked for since the last time."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def is_grave(entry):
    return entry["level"] == "SEVERE" and "favicon" not in entry["message"]


def test_formulas_are_noticed_when_they_are_wrong(site, browser):
    """The check above can fail: a formula that TeX refuses is one."""
    browser.get(f"{site}/docs/derivations.html")
    browser.execute_async_script(FORMULAS_ARE_SET)
    assert browser.execute_script(STATE)["formulas"] > 10
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<p class=math>\\\\(\\\\frac{1}\\\\)</p>')")
    browser.execute_async_script("MathJax.typesetPromise().then(arguments[0])")
    assert browser.execute_script(STATE)["wrong"]


def test_the_slider_slides(site, browser):
    """A higher threshold suppresses less: the number of boxes kept follows the slider."""
    from selenium.webdriver.common.by import By

    browser.get(f"{site}/notebooks/05_region_proposals.html")
    slider = browser.find_element(By.CSS_SELECTOR, ".nms-slider input[type=range]")
    kept = browser.find_element(By.CSS_SELECTOR, ".nms-slider .nms-kept")
    counts = []
    for end in ("min", "max"):
        browser.execute_script(
            "arguments[0].value = arguments[0][arguments[1]];"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            slider,
            end,
        )
        counts.append(int(re.search(r"\d+", kept.text)[0]))
    assert counts[0] < counts[1]


def test_the_search_finds(site, browser):
    """It runs in the browser, from an index that lies beside the pages."""
    browser.get(f"{site}/search.html?q=suppression")
    found = browser.execute_async_script(
        "const done = arguments[0]; let n = 0;"
        "const look = () => document.querySelectorAll('ul.search li').length || n++ > 100"
        " ? done(document.querySelectorAll('ul.search li').length) : setTimeout(look, 100); look();"
    )
    assert found > 3
