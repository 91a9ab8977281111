"""The whole book as one PDF: the pages as one, printed by Chromium. Run by ``make pdf``."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PAGE = Path(__file__).parents[1] / "_build" / "singlehtml" / "index.html"
TARGET = PAGE.parents[1] / "book.pdf"


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("make pdf prints with Chromium, which is not installed: apt-get install chromium", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto(PAGE.as_uri())
        page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("() => document.querySelectorAll('details').forEach(e => { e.open = true; })")
        page.pdf(path=TARGET, format="A4", print_background=True, outline=True, tagged=True)
        browser.close()
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
