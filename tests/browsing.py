"""The page of `chatvec live` in a real browser, as a person uses it: Debian's chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECONDS = 30.0
GLOSS = "\n↳ "
Found = TypeVar("Found")


@contextmanager
def browser(language: str = "en") -> Iterator[WebDriver]:
    """Start a browser without a window, which asks for pages in a language."""
    assert BROWSER is not None
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--lang={language}")
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@dataclass(frozen=True)
class Page:
    """The page, in a tab."""

    driver: WebDriver

    def open(self, url: str) -> Page:
        """Open it, and wait until it can be used."""
        self.driver.get(url)
        self.wait(lambda: self.all("#picture-0 svg") and self.one("#send").is_enabled())
        return self

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Have a screen of so many pixels, light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale}
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**metrics, "mobile": width < 600}
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def wait(self, condition: Callable[[], Found], seconds: float = SECONDS) -> Found:
        """Wait until something is so, and return it."""
        ignored = (StaleElementReferenceException, IndexError)
        waiting = WebDriverWait(self.driver, seconds, 0.1, ignored_exceptions=ignored)
        return waiting.until(lambda _: condition())  # type: ignore[return-value]

    def one(self, selector: str) -> WebElement:
        """Return an element by its CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that a CSS selector is for."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Click on something, once it is there."""
        self.wait(lambda: self.all(selector))
        element = self.one(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def script(self, text: str, *arguments: Any) -> Any:
        """Return what JavaScript returns."""
        return self.driver.execute_script(text, *arguments)

    def type_number(self, slider: str, number: str) -> None:
        """Type a number into a slider's box, and let go."""
        box = self.one(f"#{slider} input[type=number]")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(number, Keys.ENTER)

    def hold(self, slider: str, key: str, times: int) -> None:
        """Hold a key on a slider until it has repeated so often, and let go of it."""
        self.script("arguments[0].focus()", self.one(f"#{slider} input[type=range]"))
        event = {"key": key, "code": key, "windowsVirtualKeyCode": CODES[key]}
        for _ in range(times):
            self.driver.execute_cdp_cmd(
                "Input.dispatchKeyEvent", {"type": "rawKeyDown", "autoRepeat": True, **event}
            )
        self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    def ask(self, request: str) -> None:
        """Type a message and send it."""
        self.one("#request textarea").send_keys(request, Keys.ENTER)

    def said(self, side: int) -> list[str]:
        """Return the messages of a conversation, without what they mean."""
        messages = self.all(f"#chat-{side} .message")
        return [message.text.partition(GLOSS)[0] for message in messages]

    def answer(self, side: int) -> str:
        """Return the last answer of a conversation, once it is there and nothing more comes."""
        self.wait(lambda: len(self.said(side)) % 2 == 0 and self.said(side))
        self.at_rest()
        return self.said(side)[-1]

    def at_rest(self) -> None:
        """Wait until nothing more comes."""
        before = ""

        def unchanged() -> bool:
            nonlocal before
            now = self.script("return document.querySelector('main').innerText")
            same, before = now == before, now
            return same

        WebDriverWait(self.driver, SECONDS, 0.25).until(lambda _: unchanged())

    def tab(self, number: int) -> None:
        """Show one of the tabs below: history, comparison, measure, saving."""
        tab = self.all('#tabs button[role="tab"]')[number]
        self.script("arguments[0].scrollIntoView({block: 'center'})", tab)
        tab.click()

    def choose(self, dropdown: str, name: str) -> None:
        """Choose from a list."""
        self.click(f"#{dropdown} input")

        def option() -> WebElement:
            named = [o for o in self.all("ul[role=listbox] li") if name in o.text]
            return named[0]

        self.wait(option).click()


CODES = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36}
