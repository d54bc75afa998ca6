# ruff: noqa: INP001  # a script that stands alone
"""Take screenshots of a report for the documentation: python docs/report_pictures.py REPORT.html [FOLDER].

Needs the package `playwright` and a Chromium of the system (its path in CHROMIUM, if it has another name).
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

#: File name, width, height, colour scheme; whether the page of the first workload is shown.
PICTURES = (
    ("report-laptop.png", 1120, 900, "light", False),
    ("report-phone.png", 390, 844, "light", False),
    ("report-workload.png", 1120, 900, "dark", True),
)


def main(report: str, folder: str = "docs") -> None:
    """Take them."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, width, height, scheme, workload in PICTURES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(Path(report).resolve().as_uri())
            if workload:
                page.locator("#table-workloads a").first.click()
                page.wait_for_timeout(200)
            page.screenshot(path=Path(folder) / name)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
