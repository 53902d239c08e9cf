"""Search the built site in a browser, opened from its folder and over http: ``check_search.py site``."""

import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORD, PAGE = "manifold", "manifold-mixup.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    """A server that does not tell of each request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def results(browser: str, address: str) -> list[str]:
    """Return the pages that a browser's search finds for a word."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([browser, *options, f"{address}?q={WORD}"], capture_output=True, text=True, check=True)
    return re.findall(r'<a href="([^"]+)" class="md-search-result__link', done.stdout)


def foreign(site: Path) -> list[str]:
    """Return what pages load from elsewhere, without being asked: scripts, styles, fonts, pictures."""
    loaded = re.compile(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|<link[^>]+stylesheet[^>]+href="(https?:[^"]+)')
    return [f"{page}: {found[0]}" for page in site.rglob("*.html") for found in loaded.finditer(page.read_text("utf-8"))]


def main() -> int:
    """Return 1 if a search finds nothing or a page asks somebody else, and say so."""
    site = Path(sys.argv[1]).resolve()
    if asked := foreign(site):
        print(*asked[:9], sep="\n")
        return 1
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("search: not tried, there is no Chromium")
        return 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    failed = 0
    for address in (site.as_uri(), f"http://127.0.0.1:{server.server_port}"):
        found = results(browser, f"{address}/index.html")
        good = any(PAGE in link for link in found)
        failed |= not good
        print(f"search at {address.partition(':')[0]}: {len(found)} pages for {WORD}" + " (FAILED)" * (not good))
    server.shutdown()
    return failed


if __name__ == "__main__":
    sys.exit(main())
