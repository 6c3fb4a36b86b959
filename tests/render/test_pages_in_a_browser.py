"""All kinds of pages in a headless browser: on a phone and a screen, light, dark and printed."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from browser import CHROMIUM, axe, needs_browser
from shown import PAGES, explained

from palrp_onnx.record import InputFacts
from palrp_onnx.render.html import shades
from palrp_onnx.render.listing import render_run
from palrp_onnx.render.run_lines import ListedRecord
from palrp_onnx.render.scale import number

pytestmark = needs_browser

SIZES = {"phone": 390, "screen": 1280}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in PAGES}
    for name, place in made.items():
        place.write_bytes(PAGES[name]())
    return made


def opened(browser: Any, place: Path, fragment: str = "", **options: Any) -> tuple[Any, list[str]]:
    """The page in a tab of its own, and everything that it complains about or asks for."""
    tab = browser.new_page(**options)
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else
           complaints.append(r.url))  # fmt: skip
    tab.goto(place.as_uri() + fragment)
    tab.wait_for_load_state()
    return tab, complaints


@pytest.mark.parametrize("name", [*PAGES, "run#record-2"])
def test_page(browser: Any, places: dict[str, Path], name: str) -> None:
    page, mark, fragment = name.partition("#")
    tab, complaints = opened(browser, places[page], mark + fragment)
    if fragment:
        tab.wait_for_selector(".detail .u")
    tab.evaluate(axe())
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for (size, width), style in itertools.product(SIZES.items(), ("light", "dark")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=style)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), size
        if (size, style) in (("phone", "dark"), ("screen", "light")):  # a check takes seconds
            assert serious_faults(tab) == [], (size, style)
    assert complaints == []
    tab.close()


def serious_faults(tab: Any) -> list[Any]:
    """What axe-core finds, in a page that has it."""
    found = tab.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("style", ["light", "dark"])
def test_every_view_of_a_text_is_readable(
    browser: Any, places: dict[str, Path], style: str
) -> None:
    tab, _ = opened(browser, places["text"], color_scheme=style)
    tab.evaluate(axe())
    for show, by in itertools.product(("total", "position", "score"), ("words", "tokens")):
        tab.click(f"[data-show={show}]")
        tab.click(f"[data-by={by}]")
        assert serious_faults(tab) == [], (show, by)
    tab.close()


@pytest.mark.parametrize("name", PAGES)
def test_printed_pages_are_light_and_open(browser: Any, places: dict[str, Path], name: str) -> None:
    tab, complaints = opened(browser, places[name], color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf().startswith(b"%PDF")
    assert complaints == []
    tab.close()


@pytest.mark.parametrize("name", PAGES)
def test_focus_is_visible_and_goes_everywhere(
    browser: Any, places: dict[str, Path], name: str
) -> None:
    tab, _ = opened(browser, places[name])
    seen = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        outline = tab.evaluate("""() => {
          const at = document.activeElement;
          if (at === document.body) return null;
          at.dataset.met = "yes";
          const style = getComputedStyle(at);
          return [at.outerHTML, style.outlineStyle, parseFloat(style.outlineWidth)];
        }""")
        if outline is None or outline[0] in seen:
            break
        seen.add(outline[0])
        assert outline[1] != "none" and outline[2] >= 2, outline[0][:200]
    assert seen
    tab.close()


def test_style_can_be_switched(browser: Any, places: dict[str, Path]) -> None:
    tab, _ = opened(browser, places["text"], color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.click("button.style")
    assert tab.evaluate(ground) != light
    tab.click("button.style")
    assert tab.evaluate(ground) == light
    tab.close()


def test_list_is_filtered_and_saved(browser: Any, places: dict[str, Path]) -> None:
    tab, complaints = opened(browser, places["run"], accept_downloads=True)
    status = tab.locator(".status")
    assert status.inner_text() == "1–50 of 121"
    tab.select_option("select[data-facet='meta year']", label=tab.evaluate(
        "document.querySelector(\"select[data-facet='meta year']\").options[1].textContent"
    ))  # fmt: skip
    assert re.fullmatch(r"1–1\d of 1\d found among 121", status.inner_text())
    tab.select_option("select[data-facet='meta year']", "")
    tab.select_option("select[data-facet='target']", label="failed (1)")
    assert status.inner_text() == "1–1 of 1 found among 121"
    tab.select_option("select[data-facet='target']", "")
    tab.locator("[data-pick]").first.click()
    assert "found among" in status.inner_text()
    tab.locator("[data-pick]").first.click()
    tab.fill("input[type=search]", "r7")
    with tab.expect_download() as saved:
        tab.click("button.export")
    lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#,id,target,value,probability")
    assert [line.split(",")[1] for line in lines[1:]] == ["r7", *(f"r7{k}" for k in range(10))]
    assert '""year"":' in lines[1]
    assert complaints == []
    tab.close()


def test_record_of_a_run_opens(browser: Any, places: dict[str, Path]) -> None:
    tab, complaints = opened(browser, places["run"], "#record-2")
    tab.wait_for_selector(".detail .u")
    assert tab.locator(".list").is_hidden()
    tab.click("text=← list")
    assert tab.locator(".list").is_visible()
    assert complaints == []
    tab.close()


def test_maps_are_switched(browser: Any, places: dict[str, Path]) -> None:
    tab, complaints = opened(browser, places["text"])
    data = json.loads(tab.locator("script.data").text_content())["maps"][0]
    painted = "els => els.map(e => [...e.classList].find(c => /^[ks]\\d+$/.test(c)) || '')"
    assert tab.eval_on_selector_all(".u", painted) == [""] * len(data["total"])
    tab.click("[data-show=content]")
    tab.click("[data-by=tokens]")
    expected = [f"k{shade}" for shade in shades(data["content"], data["limit"])]
    assert tab.eval_on_selector_all(".u", painted) == expected
    assert set(tab.eval_on_selector_all(".w", painted)) == {""}
    assert tab.locator(".map .high").last.inner_text() == "+" + number(data["limit"])[1:]
    tab.click("[data-show=score]")
    assert set(tab.eval_on_selector_all(".u", "els => els.map(e => e.className[0])")) <= {"u"}
    assert "s127" in tab.eval_on_selector_all(".u", painted)
    pressed = tab.eval_on_selector_all(
        "[data-show][aria-pressed=true]", "e => e.map(x => x.innerText)"
    )
    assert pressed == ["score"]
    assert complaints == []
    tab.close()


def test_keys_read_the_map_and_the_matrix(browser: Any, places: dict[str, Path]) -> None:
    tab, complaints = opened(browser, places["text"])
    data = json.loads(tab.locator("script.data").text_content())["maps"][0]
    tab.focus(".w[tabindex='0']")
    tab.keyboard.press("End")
    said = tab.locator(".map .readout").inner_text()
    assert "[SEP]" in said
    assert f"total {number(data['total'][-1])}" in said
    tab.click(".each summary")
    tab.focus(".panel .field")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("End")
    said = tab.locator(".panel .readout").inner_text()
    assert said.endswith(number(data["sites"][1][-1]))
    before = tab.locator(".panel .field").bounding_box()["width"]
    tab.fill(".zoom", "3")
    assert tab.locator(".panel .field").bounding_box()["width"] > 2 * before
    assert complaints == []
    tab.close()


def test_the_strongest_are_sorted_marked_and_copied(browser: Any, places: dict[str, Path]) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    tab, complaints = opened(context, places["text"])
    column = "rows => rows.map(row => Number(row.cells[2].dataset.v))"
    tab.click(".ranked thead th:nth-child(3) button")
    first = tab.eval_on_selector_all(".ranked .plus tr[data-units]", column)
    assert first == sorted(first)
    row = tab.locator(".ranked tr[data-units]").first
    row.locator("button").click()
    marked = tab.eval_on_selector_all(".hit-unit", "els => els.map(e => e.dataset.u).join()")
    assert marked == row.get_attribute("data-units")
    row.locator("button").click()
    assert tab.locator(".hit-unit").count() == 0
    tab.click("[data-copy=csv]")
    tab.wait_for_selector(".ranked [role=status]:has-text('copied')")
    lines = tab.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[0] == "word,total,content,position"
    assert len(lines) == 21
    tab.click("[data-copy=json]")
    tab.wait_for_timeout(100)
    assert len(json.loads(tab.evaluate("navigator.clipboard.readText()"))) == 20
    assert complaints == []
    context.close()


def test_what_cannot_be_copied_is_saved(browser: Any, places: dict[str, Path]) -> None:
    tab, complaints = opened(browser, places["table"], accept_downloads=True)
    tab.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")
    with tab.expect_download() as saved:
        tab.click("[data-copy=json]")
    assert saved.value.suggested_filename == "strongest.json"
    assert len(json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))) == 20
    assert complaints == []
    tab.close()


def test_a_patch_is_marked(browser: Any, places: dict[str, Path]) -> None:
    tab, complaints = opened(browser, places["image"])
    tab.locator(".ranked tbody button").first.click()
    assert tab.locator(".field .found").count() == 1
    assert complaints == []
    tab.close()


def test_hostile_texts_of_a_run_stay_texts(browser: Any, tmp_path: Path) -> None:
    record = explained("reviews-rope")[0]
    hostile = (
        "</script><script>document.title='bad'</script><img src=x onerror=document.title='bad'>"
    )
    named = msgspec.structs.replace(
        record,
        id=hostile,
        target=msgspec.structs.replace(record.target, label=hostile),
        units=msgspec.structs.replace(record.units, text=[hostile] * len(record.units.text)),
        input=InputFacts(kind="text", text=None),
    )
    place = tmp_path / "run.html"
    place.write_bytes(render_run("run", [ListedRecord("1", named, meta={hostile: hostile})]).html)
    tab, complaints = opened(browser, place, "#record-1")
    tab.wait_for_selector(".detail .u")
    assert tab.title() == "run"
    assert complaints == []
    tab.close()


def test_pages_are_whole_without_their_script(browser: Any, places: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    for name in ("text", "run", "comparison"):
        tab = context.new_page()
        tab.goto(places[name].as_uri())
        assert tab.locator(".controls").first.is_hidden() or name == "run"
        assert tab.locator("button:visible:enabled").count() == 0
        assert tab.locator("table:visible").count() > 0
        tab.close()
    context.close()
