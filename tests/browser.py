"""A headless Chromium for the tests of pages: each records what its page complains of and what it asks the network for.

Tests take the fixture `open_page` (conftest.py makes it known to all). They are skipped, with the reason, where there is
no Chromium, no playwright, or Chromium does not start.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip


@dataclass
class Opened:
    """A page that is open.

    Attributes:
        page: playwright's.
        complaints: console errors and warnings, and exceptions that nothing caught.
        requests: addresses that were asked for, but the page's own server or folder.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def serious(self) -> list[str]:
        """What axe-core finds serious or critical, with the first element concerned."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in {"serious", "critical"}]

    def overflow(self) -> int:
        """By how many CSS pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def unwanted(address: str, home: str) -> bool:
    """Whether a request leaves the page: for a host, or a file, that is not where the page itself lies."""
    return not address.startswith(("data:", "blob:", "about:", home))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium, for the tests of one module: playwright keeps an event loop running until it is closed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """A function that opens a file or an address: `open_page(path, width=400, color_scheme="dark")`."""
    contexts = []

    def go(where: Path | str, width: int = 1280, height: int = 900, **options: Any) -> Opened:
        address = where.resolve().as_uri() if isinstance(where, Path) else where
        home = address.rpartition("/")[0] + "/" if isinstance(where, Path) else "/".join(address.split("/")[:3]) + "/"
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on(
            "console", lambda m: opened.complaints.append(m.text) if m.type in {"error", "warning"} else None
        )
        opened.page.on(
            "request", lambda r: opened.requests.append(r.url) if unwanted(r.url, home) else None
        )  # one that a policy blocks is no request, but a complaint
        opened.page.goto(address)
        return opened

    yield go
    for context in contexts:
        context.close()
