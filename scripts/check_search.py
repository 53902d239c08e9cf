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


LINK = 'class="md-search-result__link'
WAITS = """<img src="wait">
<script>setInterval(() => document.querySelector(".md-search-result__link") && fetch("seen"), 200)</script>"""
"""What keeps a page from being loaded, so that the browser shows it only once there is a result."""


class Server(SimpleHTTPRequestHandler):
    """A server of the site, in silence, whose first page waits for results; a browser's workers know no other clock."""

    seen = threading.Event()

    def do_GET(self) -> None:
        """Answer what the first page asks beside the site's own files."""
        if self.path.startswith("/index.html"):
            body = Path(self.directory, "index.html").read_bytes() + WAITS.encode()
        elif self.path in ("/wait", "/seen"):
            self.seen.wait(60) if self.path == "/wait" else self.seen.set()
            body = b""
        else:
            return super().do_GET()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def results(browser: str, address: str, *options: str) -> list[str]:
    """Return the pages that a browser's search finds for a word."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options)
    done = subprocess.run([browser, *options, f"{address}?q={WORD}"], capture_output=True, text=True, check=True)
    return re.findall(rf'<a href="([^"]+)" {LINK}', done.stdout)


def foreign(site: Path) -> list[str]:
    """Return what pages load from elsewhere, without being asked: scripts, styles, fonts, pictures."""
    loaded = re.compile(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|<link[^>]+stylesheet[^>]+href="(https?:[^"]+)')
    return [
        f"{page}: {found[0]}" for page in site.rglob("*.html") for found in loaded.finditer(page.read_text("utf-8"))
    ]


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
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    failed = 0
    addresses = {site.as_uri(): ["--virtual-time-budget=20000"], f"http://127.0.0.1:{server.server_port}": []}
    for address, options in addresses.items():
        found = results(browser, f"{address}/index.html", *options)
        good = any(PAGE in link for link in found)
        failed |= not good
        print(f"search at {address.partition(':')[0]}: {len(found)} pages for {WORD}" + " (FAILED)" * (not good))
    server.shutdown()
    return failed


if __name__ == "__main__":
    sys.exit(main())
