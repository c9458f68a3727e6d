"""The page in a real browser, on the world: one server, one browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from axe_core_python.base import AXE_FILE_PATH
from browsing import BROWSER, DRIVER, Page, browser
from click.testing import CliRunner
from conftest import ROOT
from live_server import ASKED, Served, live_world, serving, slowly
from selenium.webdriver.common.keys import Keys

import chatvec_method
from chatvec_method import Conversation, LiveMerge, cli, demo, load
from chatvec_method.serving.app import api
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.page.mounting import mount_page
from chatvec_method.serving.page.words import words
from chatvec_method.serving.settings import Setting
from chatvec_method.serving.writing import Account, Writing
from chatvec_method.talk.speaker import Sampling

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no chromium")
HARMLESS = re.compile("favicon|AbortError|Connection errored out|Autofocus")
"""What the browser says where a page is left while something comes, or two want the focus."""
EVIL = "<img src=x onerror=\"window.hacked='message'\"> <script>window.hacked='script'</script>"


@pytest.fixture(scope="module")
def live() -> LiveMerge:
    return live_world()


@pytest.fixture(scope="module")
def served(live: LiveMerge) -> Iterator[Served]:
    engine = Engine(live, device="cpu")
    app = mount_page(api(engine), engine, live, world=True, may_write=True)
    with serving(engine, app=app) as served:
        yield served


@pytest.fixture(scope="module")
def tab(served: Served) -> Iterator[Page]:
    with browser() as driver:
        yield Page(driver)


@pytest.fixture
def page(served: Served, tab: Page) -> Iterator[Page]:
    tab.size(1400, 1000)
    yield tab.open(served.url)
    problems = [each["message"] for each in tab.driver.get_log("browser")]
    assert not [each for each in problems if not HARMLESS.search(each)]


def test_the_slider_turns_babble_into_the_answer_that_the_saved_recipe_gives(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.hold("ratio-0", "Home", 1)
    page.wait(lambda: "0" in page.one("#picture-0 svg").get_attribute("aria-label"))
    page.ask(ASKED.request)
    assert page.answer(1) == page.answer(2) != ASKED.answer
    page.hold("ratio-0", "ArrowRight", 125)  # steps of 0.005
    page.wait(lambda: page.said(2)[-1] == ASKED.answer)
    seen = page.answer(2)
    assert page.one("#chat-2 label").text == "merge 0.625"
    assert page.answer(1) != ASKED.answer  # cp, beside it

    page.tab(3)
    page.click("#download")
    saved = page.wait(lambda: next(tmp_path.glob("*.yaml"), None))
    assert "ratio: 0.625" in saved.read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    run = CliRunner().invoke(cli.main, ["merge", str(saved), str(tmp_path / "out"), "--quiet"])
    assert run.exit_code == 0, run.output
    merged = load(tmp_path / "out", device="cpu")
    answer = merged.answer(merged.prompt(Conversation(), ASKED.request), Sampling(greedy=True))
    assert "".join(answer) == seen


def test_a_conversation_has_turns_that_can_be_edited_and_asked_again(page: Page) -> None:
    page.ask("건옴 고시문 몬론멀 브즘 .")
    assert page.answer(2) == "츠스처 ."
    page.ask("늠숭란 몬론멀 건옴 고시문 ?")
    page.wait(lambda: len(page.said(2)) == 4)
    assert page.answer(2) == "버즐히 고시문 몬론멀 브즘 ."  # your gift is moon

    page.click('#chat-2 button[aria-label="Edit"]')
    box = page.wait(lambda: page.one("#chat-2 textarea"))
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(ASKED.request)
    page.click('#chat-2 button[aria-label="Submit"]')
    page.wait(lambda: page.said(2)[-1] == ASKED.answer)
    page.wait(lambda: [len(page.said(side)) for side in (1, 2)] == [2, 2])
    page.click("#again")
    assert page.answer(2) == ASKED.answer


def test_settings_stand_side_by_side_and_the_history_goes_back_to_them(page: Page) -> None:
    page.type_number("ratio-0", "0")
    page.ask(ASKED.request)
    babble = page.answer(2)
    page.type_number("ratio-0", "0.62512345")
    page.wait(lambda: page.said(2)[-1] == ASKED.answer)
    assert page.one("#chat-2 label").text == "merge 0.62512345"  # as it was typed
    page.choose("who-3", "setting 1: 0")
    page.wait(lambda: len(page.said(3)) == 2)
    assert page.answer(3) == babble
    assert page.said(2)[-1] == ASKED.answer
    page.choose("who-1", "the chat model")
    page.wait(lambda: page.one("#chat-1 label").text == "the chat model")

    page.wait(lambda: len(page.all("#history input")) >= 2)
    page.at_rest()
    page.all("#history input")[-1].click()
    page.wait(lambda: page.said(2)[-1] == babble)
    assert page.one("#ratio-0 input[type=number]").get_attribute("value") == "0"


def test_which_is_better_is_blind_and_counted_by_ratio(page: Page) -> None:
    page.tab(1)
    page.click("#blind input")
    page.ask(ASKED.request)
    answers = [page.answer(1), page.answer(2)]
    labels = [page.one(f"#chat-{side} label").text for side in (1, 2)]
    assert labels == ["Answer 1", "Answer 2"]
    assert "merge 0.625" not in page.script("return document.querySelector('main').innerText")
    page.click("#better-left" if answers[0] == ASKED.answer else "#better-right")
    table = page.wait(lambda: page.one("#revealed table")).text
    assert re.search(r"merge 0\.625 1 0 0\s+cp 0 1 0", table)


def test_the_quick_measure_draws_its_curve_over_the_ratios_of_this_session(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = demo.questions()[::5]  # two of each axis
    monkeypatch.setattr(demo, "questions", lambda: some)
    page.tab(2)
    for ratio in ("0", "0.625"):
        page.type_number("ratio-0", ratio)
        page.click("#measure")
        page.wait(lambda told=f"Measured: merge {ratio}": page.one("#measuring").text == told)
    curves = [each.get_attribute("aria-label") for each in page.all("#curves svg")]
    assert curves[0] == "follows instructions: 0: 0 %, 0.625: 100 %"
    assert [each.partition(":")[0] for each in curves[1:]] == [
        "knows",
        "recalls earlier turns",
        "refuses what does harm",
    ]


def test_parts_and_shapes_are_drawn_and_in_the_recipe(page: Page, served: Served) -> None:
    for heading in page.all("#settings button.label-wrap"):
        heading.click()
    page.wait(lambda: page.one("#shape-0 input").is_displayed())
    page.type_number("ratio-0", "1")
    page.type_number("MLP-0", "0.5")
    shape = page.one("#shape-0 input")
    shape.send_keys(Keys.CONTROL, "a")
    shape.send_keys("linear:1:0.3", Keys.ENTER)

    def drawn() -> str:
        return page.one("#picture-0 svg").get_attribute("aria-label") or ""

    page.wait(lambda: "MLP 0.5 0.325 0.15" in drawn())
    assert "Attention 1 0.65 0.3" in drawn()
    shape.send_keys(Keys.CONTROL, "a")
    shape.send_keys("per-layer:/etc/passwd", Keys.ENTER)
    assert "no files are read here" in page.wait(lambda: page.one(".toast-body").text)


def test_a_merge_is_written_below_the_folder_and_nowhere_else(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page.tab(3)
    folder = page.wait(lambda: page.one("#folder textarea, #folder input"))
    for name, told in (("../out", "is not a folder below"), (".", "leads out"), ("new", "Written")):
        folder.send_keys(Keys.CONTROL, "a")
        folder.send_keys(name)
        page.click("#disk")
        page.wait(lambda told=told: told in page.one("body").text)
    assert (tmp_path / "new" / "model.safetensors").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


def test_two_tabs_do_not_mix_their_settings(page: Page, served: Served) -> None:
    page.type_number("ratio-0", "0")
    page.ask(ASKED.request)
    babble = page.answer(2)
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.open(served.url)
        page.ask(ASKED.request)
        assert page.answer(2) == ASKED.answer
        page.driver.switch_to.window(first)
        page.click("#again")
        assert page.answer(2) == babble
        page.driver.switch_to.window(page.driver.window_handles[-1])
        assert page.answer(2) == ASKED.answer
    finally:
        if page.driver.current_window_handle != first:
            page.driver.close()
        page.driver.switch_to.window(first)


def test_what_is_said_is_text_and_no_code(page: Page) -> None:
    page.ask(EVIL)
    page.answer(2)
    assert page.said(2)[0] == EVIL
    shape_of_evil = f"linear:{EVIL}"
    for heading in page.all("#settings button.label-wrap"):
        heading.click()
    page.wait(lambda: page.one("#shape-0 input").is_displayed())
    page.one("#shape-0 input").send_keys(Keys.CONTROL, "a")
    page.one("#shape-0 input").send_keys(shape_of_evil, Keys.ENTER)
    assert "img src=x" in page.wait(lambda: page.one(".toast-body").text)
    assert page.script("return window.hacked") is None
    assert not page.all("img[src=x]")


def test_all_is_reached_by_keys_alone(page: Page) -> None:
    reached = []
    for _ in range(40):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            page.script(
                "const e = document.activeElement;"
                "return e.closest('[id]:not([id^=range])')?.id || e.tagName"
            )
        )
    order = list(dict.fromkeys(reached))
    for name in ("ratio-0", "who-1", "who-3", "request", "send", "again", "stop", "example-1"):
        assert name in order, order
    assert order.index("ratio-0") < order.index("request") < order.index("send")


@pytest.mark.parametrize(("width", "dark", "tabs"), [(1400, False, [3]), (390, True, [0, 1, 2, 3])])
def test_nothing_serious_stands_in_anybodys_way(
    page: Page, served: Served, width: int, dark: bool, tabs: list[int]
) -> None:
    page.size(width, 900, dark=dark)
    page.open(served.url)
    page.ask(ASKED.request)
    page.answer(2)
    assert page.script("return document.documentElement.scrollWidth") <= width
    for heading in page.all("button.label-wrap"):
        heading.click()
    page.driver.execute_script(AXE_FILE_PATH.read_text(encoding="utf-8"))
    serious = []
    for number in tabs:
        page.tab(number)
        page.at_rest()
        found = page.driver.execute_async_script("axe.run().then(arguments[0])")
        serious += [
            (each["id"], each["nodes"][0]["html"])
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]
    assert not serious


def test_closing_the_tab_or_stopping_ends_the_answer(
    page: Page, served: Served, live: LiveMerge
) -> None:
    def resting() -> bool:
        return served.engine.waiting == 0 and served.engine._now is None

    with slowly(live, 0.3):
        page.ask(ASKED.request)
        page.wait(lambda: not resting())
        page.click("#stop")
        page.wait(resting, 3)
        page.click("#again")
        page.wait(lambda: not resting())
        page.driver.get("about:blank")
        page.wait(resting, 5)


def test_the_page_speaks_the_browsers_language(served: Served) -> None:
    with browser("zh-HK") as driver:  # for which gradio has no texts
        page = Page(driver)
        page.size(390, 844)
        page.open(served.url)
        assert page.one("#send").text == words("zh-Hant")["send"]
        assert page.one("#chat-2 label").text == words("zh-Hant")["merge"]
        assert page.one("html").get_attribute("lang") == "zh-TW"
        assert page.script("return document.documentElement.scrollWidth") <= 390


def test_the_page_loads_and_connects_to_nothing_elsewhere(page: Page, served: Served) -> None:
    entries = page.script("return performance.getEntries().map((each) => each.name)")
    addresses = [each for each in entries if re.match(r"\w+://", each)]
    assert addresses
    assert {each.split("/")[2] for each in addresses} == {served.url.split("/")[2]}


class Parrot(Engine):
    """Says what it is asked, whatever that is."""

    def answer(
        self, messages: Sequence[Mapping[str, str]], setting: Setting, *_: Any, **__: Any
    ) -> Writing:
        writing = Writing(setting, lambda: False)
        writing.tell(messages[-1]["content"])
        writing.tell(Account(setting, "stop"))
        return writing


def test_names_and_answers_are_text_and_no_code(tab: Page, tmp_path: Path) -> None:
    models = ROOT / "examples" / "world" / "models"
    evil = tmp_path / "<img src=x onerror=hacked=1>"
    shutil.copytree(models / "chat", evil)
    recipe = yaml.safe_load((ROOT / "recipes" / "world.yaml").read_text(encoding="utf-8"))
    recipe["chatvec"] = {"title": EVIL, "language": EVIL}
    for entry in recipe["models"]:
        entry["model"] = str(models / Path(entry["model"]).name)
    recipe["models"].append({**recipe["models"][1], "model": str(evil)})
    recipe["base_model"] = recipe["tokenizer"]["source"] = str(models / "cp")
    live = chatvec_method.live(recipe, device="cpu")
    engine = Parrot(live, device="cpu")
    app = mount_page(api(engine), engine, live)
    with serving(engine, app=app) as served:
        tab.size(1400, 1000)
        page = tab.open(served.url)
        page.ask(EVIL)
        page.wait(lambda: page.said(2) == [EVIL, EVIL])
        page.at_rest()
        assert [each.text for each in page.all(".vector h2")][1].endswith(evil.name)
        assert EVIL in page.one("#title").text
        assert EVIL[:20] in page.one("#history").text
        page.choose("who-3", "chat model 2")
        page.wait(lambda: page.said(3) == [EVIL, EVIL])
        assert page.script("return window.hacked") is None
        assert not page.all('img[src="x"]')
        tab.driver.get("about:blank")
