"""Take the screenshots of a report that the docs show: docs/report.png and docs/report-phone.png.

    python benchmarks/screenshots.py reports/gemma3-270m.html

Needs Chromium and its driver (``apt-get install chromium chromium-driver fonts-noto-cjk``).
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import click
from selenium import webdriver

# File -> width, height, colour scheme, section at the top.
SCREENSHOTS = {
    "report.png": (1100, 632, "light", "scores"),
    "report-phone.png": (390, 844, "dark", "errors"),
}


@click.command(help=__doc__)
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docs"), show_default=True)
def main(report: Path, out: Path) -> None:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise click.ClickException("Chromium or its driver is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        for name, (width, height, scheme, section) in SCREENSHOTS.items():
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            browser.get(report.resolve().as_uri())
            if section != "scores":
                browser.execute_script("document.getElementById(arguments[0]).scrollIntoView()", section)
            picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
            (out / name).write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    main()
