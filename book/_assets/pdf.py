"""The whole book as one PDF: each page printed by Chromium, in the order of the menu. Run by ``make pdf``."""

import shutil
import sys
from io import BytesIO
from pathlib import Path

from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from tqdm import tqdm

BOOK = Path(__file__).parents[1]
BUILT = BOOK / "_build" / "html"
TARGET = BOOK / "_build" / "book.pdf"
MENU = """() => [...document.querySelectorAll('.bd-sidebar-primary nav a.reference.internal')]
  .map(a => [a.href, a.textContent.trim()]).filter(([href]) => !href.includes('#'))"""
# A link to another page would be printed as a path of this machine.
FOR_PAPER = """() => {
  for (const e of document.querySelectorAll('details')) e.open = true;
  for (const a of document.querySelectorAll('a[href]'))
    if (!/^(#|https?:)/.test(a.getAttribute('href'))) a.removeAttribute('href'); }"""


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("make pdf prints with Chromium, which is not installed: apt-get install chromium", file=sys.stderr)
        return 2
    book = PdfWriter()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto((BUILT / "index.html").as_uri())
        pages = [((BUILT / "index.html").as_uri(), page.title()), *page.evaluate(MENU)]
        for address, title in tqdm(pages, desc="pages"):
            page.goto(address)
            page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
            page.evaluate(FOR_PAPER)
            printed = page.pdf(format="A4", print_background=True, tagged=True)
            book.append(PdfReader(BytesIO(printed)), outline_item=title)
        browser.close()
    book.add_metadata({"/Title": pages[0][1]})
    book.write(TARGET)
    print(f"{TARGET}: {len(book.pages)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
