"""A real browser for the tests of pages."""

import shutil

import pytest

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _BROWSER is None:
        pytest.skip("there is no Chromium to open the page with")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=_BROWSER, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a page at a width; what it complains about and asks the network for is collected."""
    opened = []

    def go(path, width, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        opened.append(page)
        page.trouble = []
        page.on("console", lambda message: page.trouble.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.trouble.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:", "blob:")) else page.trouble.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield go
    for page in opened:
        page.close()
