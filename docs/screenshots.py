"""Writes docs/live/, what a person sees of `chatvec live`: `python docs/screenshots.py`.

The page of the demonstration, in Debian's chromium: on a desk, in the dark, and on a phone.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).parent / "live"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browsing import Page, browser  # noqa: E402

COLOURS = 128
REQUEST = "늠숭란 몬론멀 누출 만흥 브시 보참 층호 미린 보을 ?"
RATIOS = ("0", "0.25", "0.5", "1", "0.625")
DESK, WHOLE, PHONE = (1320, 648), (1320, 1245), (390, 844)
SCALE = 1.25


@contextmanager
def server() -> Iterator[str]:
    """Serve the demonstration as anybody does, and yield the page's address."""
    command = [sys.executable, "-m", "chatvec_method", "live", "--port", "0"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        yield run.stdout.readline().split()[0]
    finally:
        run.terminate()
        run.wait()


def ask_at(page: Page, url: str) -> None:
    """Ask at ratio 0, and then turn it."""
    page.open(url)
    page.type_number("ratio-0", "0")
    page.ask(REQUEST)
    page.answer(2)
    page.type_number("ratio-0", "0.625")
    page.wait(lambda: page.one("#chat-2 label").text == "merge 0.625")
    page.answer(2)


def measure(page: Page) -> None:
    """Measure at a few ratios, so that there are curves."""
    page.tab(2)
    for ratio in RATIOS:
        page.type_number("ratio-0", ratio)
        page.click("#measure")
        told = f"Measured: merge {ratio}"
        page.wait(lambda told=told: page.one("#measuring").text == told, 120)
    page.click("#settings .finer button.label-wrap")
    page.type_number("attention-0", "0.8")
    page.wait(lambda: page.one("#chat-2 label").text == "merge 0.625, attention × 0.8")
    page.answer(2)


def save(page: Page, name: str, width: int, height: int, *, dark: bool) -> None:
    """Write what is on the screen, in few colours."""
    page.size(width, height, dark=dark, scale=SCALE if width > PHONE[0] else 2)
    page.script("scrollTo(0, 0); document.activeElement.blur()")
    page.at_rest()
    picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    few = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    FOLDER.mkdir(exist_ok=True)
    few.save(FOLDER / f"{name}.png", optimize=True)


def main() -> None:
    """Write all pictures."""
    with server() as url, browser() as driver:
        page = Page(driver)
        page.size(*WHOLE)
        ask_at(page, url)
        measure(page)
        save(page, "desktop", *DESK, dark=False)
        save(page, "dark", *WHOLE, dark=True)
    with server() as url, browser("ko") as driver:
        page = Page(driver)
        page.size(*PHONE)
        ask_at(page, url)
        save(page, "phone", *PHONE, dark=False)


if __name__ == "__main__":
    main()
