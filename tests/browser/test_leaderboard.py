"""The leaderboard in Airflow's web UI, for a signed-in user, in a real browser.

Screenshots are written to ``.cache/screenshots/``; two of them are in ``docs/images/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame, Locator, Page, expect

from numerai_pipeline.dag.leaderboard_links import ADDRESS
from numerai_pipeline.leaderboard.static_page import write_static_page
from numerai_pipeline.storage.layout import RunLayout
from tests.browser.conftest import HOSTILE, Watched, WebUi
from tests.generated_run import FORMULA, make_run
from tests.samples import ROOT

pytestmark = pytest.mark.browser

NONE = "\u2013"
PICTURES = ROOT / ".cache" / "screenshots"
OpenPage = Callable[..., Page]
WIDTHS, SCHEMES = (1400, 400), ("light", "dark")


@pytest.fixture(
    params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=lambda each: f"{each[0]}-{each[1]}"
)
def look(request: pytest.FixtureRequest) -> tuple[int, str]:
    width, scheme = request.param
    return width, scheme


@pytest.fixture
def open_page(browser: Browser, web_ui: WebUi) -> Iterator[OpenPage]:
    """Open signed-in pages; at the end, none of them may have console errors."""
    opened: list[Watched] = []
    contexts = []

    def open_one(width: int = 1400, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
        )
        context.add_cookies([{"name": "_token", "value": web_ui.token(), "url": web_ui.address}])
        contexts.append(context)
        page = context.new_page()
        opened.append(Watched(page, web_ui.address))
        return page

    yield open_one
    for context in contexts:
        context.close()
    for watched in opened:
        watched.assert_quiet()


def address_of(web_ui: WebUi, layout: RunLayout, **more: str) -> str:
    extra = "".join(f"&{name}={value}" for name, value in more.items())
    return f"{web_ui.address}/{ADDRESS}?round={layout.directory.parent.name}&run={layout.directory.name}{extra}"


def scores(page: Page | Frame) -> Locator:
    return page.get_by_role("table", name="Scores of the models")


def column(page: Page | Frame, name: str) -> list[str]:
    """Return the cells of a column of the scores, from top to bottom."""
    expect(scores(page)).to_be_visible()
    heads = [text.split("\u00a0")[0] for text in scores(page).locator("thead th").all_inner_texts()]
    cells = scores(page).locator(f"tbody tr > *:nth-child({heads.index(name) + 1})")
    return [text.strip() for text in cells.all_inner_texts()]


def drawn(chart: Locator) -> int:
    """Return how often a chart was drawn, after it became visible."""
    chart.scroll_into_view_if_needed()
    expect(chart.locator("canvas").first).to_be_visible()
    return int(chart.get_attribute("data-drawn") or 0)


def assert_has_ink(chart: Locator) -> None:
    """Check that a chart's canvas shows more than the background."""
    colours = chart.locator("canvas").first.evaluate(
        """canvas => {
            const sheet = new OffscreenCanvas(canvas.width, canvas.height);
            const copy = sheet.getContext('2d', { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    assert colours > 20


def assert_fits(page: Page) -> None:
    """Check that the page is not wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def take(page: Page, name: str) -> None:
    """Take a screenshot of the whole page with all charts."""
    for chart in page.locator(".chart").all():
        drawn(chart)
    page.evaluate("window.scrollTo(0, 0)")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def test_page_finished_run_shows_all_sections_at_each_width_and_colour(
    open_page: OpenPage, web_ui: WebUi, look: tuple[int, str]
) -> None:
    width, scheme = look
    page = open_page(width, scheme)
    page.goto(address_of(web_ui, web_ui.finished))
    expect(scores(page)).to_be_visible()
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        *("The run", "Scores", "Models in the charts", "CORR over the eras", "Predictions"),
        *("Correlation between models", "Embeddings of the rows", "Drift: training against validation"),
        *(f"Search of {search}" for search in ("auto_sklearn", "auto_weka", "tpot")),
        *("Weights of the ensemble", "Time, memory and images"),
    ]
    assert_fits(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 31)"}[scheme]
    charts = page.locator(".chart").all()
    assert len(charts) == 7
    for chart in charts:
        drawn(chart)
    page.get_by_text("rows, sampled evenly from all tables").wait_for()
    for chart in charts:
        assert_has_ink(chart)
    take(page, f"finished-{width}-{scheme}")
    page.get_by_role("heading", name="Models in the charts").evaluate("heading => heading.scrollIntoView()")
    page.screenshot(path=PICTURES / f"charts-{width}-{scheme}.png")


def test_table_click_on_heading_sorts_and_sets_aria_sort(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(address_of(web_ui, web_ui.finished))
    assert column(page, "Rank") == [str(rank) for rank in range(1, 14)]
    exposure = scores(page).get_by_role("columnheader", name="Exposure")
    assert exposure.get_attribute("aria-sort") is None
    exposure.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(exposure).to_have_attribute("aria-sort", "ascending")
    shown = column(page, "Exposure")
    assert shown[-1] == NONE  # a reference has none, and unknown values come last
    assert shown[:-1] == sorted(shown[:-1])
    page.keyboard.press("Enter")
    expect(exposure).to_have_attribute("aria-sort", "descending")
    assert column(page, "Exposure") == [*sorted(shown[:-1], reverse=True), NONE]
    expect(scores(page).locator("[aria-sort]")).to_have_count(1)
    scores(page).get_by_role("button", name="Model").click()
    names = column(page, "Model")
    assert names == sorted(names)


def test_table_numbers_are_right_aligned_with_equal_digits(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(address_of(web_ui, web_ui.finished))
    assert all(re.fullmatch(r"[+\u2212]0\.\d{4}|\u2013", text) for text in column(page, "CORR"))
    assert all(re.fullmatch(r"0\.\d{5}", text) for text in column(page, "Logloss"))
    aligned = (
        scores(page)
        .locator("td.number")
        .evaluate_all("cells => new Set(cells.map(c => getComputedStyle(c).textAlign)).size")
    )
    assert aligned == 1
    assert scores(page).locator("td.number").first.evaluate("cell => getComputedStyle(cell).textAlign") == "right"
    assert "mmc" not in [head.lower() for head in scores(page).locator("thead th").all_inner_texts()]


def test_charts_selected_models_are_drawn(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(address_of(web_ui, web_ui.finished))
    chart = page.get_by_role("img", name=re.compile("^Cumulative CORR per era of"))
    before = drawn(chart)
    box = page.get_by_role("checkbox", name="wide_and_deep")
    expect(box).not_to_be_checked()
    box.check()
    expect(page.get_by_role("img", name=re.compile("Cumulative CORR.*wide_and_deep"))).to_be_visible()
    assert drawn(chart) > before
    page.get_by_role("button", name="None").click()
    expect(page.get_by_role("img", name="Cumulative CORR per era of no model")).to_be_visible()
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_role("img", name=re.compile("Cumulative CORR.*constant_half"))).to_be_visible()
    page.get_by_role("combobox", name="Rows").select_option("live")
    expect(page.get_by_role("img", name=re.compile("predictions on live rows"))).to_be_visible()


def test_embeddings_can_be_selected_and_coloured(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(address_of(web_ui, web_ui.finished))
    chart = page.locator(".chart.embedding")
    chart.scroll_into_view_if_needed()
    page.get_by_text("rows, sampled evenly from all tables").wait_for()
    for colour in ("era", "split", "target"):
        before = drawn(chart)
        page.get_by_role("combobox", name="Coloured by").select_option(colour)
        expect(chart).to_have_attribute("aria-label", re.compile(f"perplexity 30, features, coloured by {colour}"))
        assert drawn(chart) == before + 1
        assert_has_ink(chart)
        take(page, f"map-by-{colour}")
    with page.expect_response(re.compile("/embeddings/perplexity_30_polynomial$")) as answer:
        page.get_by_role("combobox", name="Embedding").select_option(label="perplexity 30, features and their products")
    assert answer.value.ok
    expect(chart).to_have_attribute("aria-label", re.compile("features and their products"))


def test_page_linked_model_is_marked_and_visible(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page(400)
    page.goto(address_of(web_ui, web_ui.finished, model="neural_network"))
    row = scores(page).locator("tr[aria-current=true]")
    expect(row).to_contain_text("neural_network")
    expect(row).to_be_in_viewport()
    expect(page.get_by_label("neural_network", exact=True)).to_be_checked()


def test_page_unfinished_run_lists_missing_results(open_page: OpenPage, web_ui: WebUi, look: tuple[int, str]) -> None:
    width, scheme = look
    page = open_page(width, scheme)
    page.goto(address_of(web_ui, web_ui.half))
    expect(page.get_by_text("This run has not been evaluated")).to_contain_text("3 models produced predictions")
    missing = page.locator(".notice li").all_inner_texts()
    assert "the scores (leaderboard.json) \u2013 evaluate" in missing
    assert "Meta model: meta_model.parquet: the server answered 404 Not Found" in missing
    live = "live_benchmark_models.parquet: no values of v6_new, which the other file has"
    assert f"Benchmark models, live rows: {live}" in missing
    assert sorted(column(page, "Model")) == ["svm", "wide_and_deep", "xgboost"]
    assert_fits(page)
    take(page, f"half-{width}-{scheme}")


def test_page_model_name_with_html_is_shown_as_text(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(address_of(web_ui, web_ui.hostile))
    assert HOSTILE in column(page, "Model")
    chart = page.get_by_role("img", name=re.compile("^Cumulative CORR per era of"))
    drawn(chart)
    chart.hover()  # the tooltip lists the models
    expect(page.locator("main img, .chart img")).to_have_count(0)
    assert page.title() == "Round 1330 \u2013 Numerai leaderboard"


def test_picker_lists_runs_newest_first(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(f"{web_ui.address}/{ADDRESS}")
    expect(scores(page)).to_be_visible()
    picker = page.get_by_label("Round and run")
    groups = picker.locator("optgroup").evaluate_all("groups => groups.map(group => group.label)")
    assert groups == ["Round 1335", "Round 1330"]
    wanted = f"1330/{web_ui.hostile.directory.name}"
    picker.select_option(wanted)
    expect(page).to_have_title("Round 1330 \u2013 Numerai leaderboard")
    assert f"run={web_ui.hostile.directory.name}" in page.url
    page.reload()
    expect(picker).to_have_value(wanted)


def test_page_removed_run_shows_an_error(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(f"{web_ui.address}/{ADDRESS}?round=1335&run=000000000000")
    expect(page.get_by_role("alert")).to_contain_text("This run does not exist")


def test_page_keyboard_focus_reaches_all_controls_and_is_visible(open_page: OpenPage, web_ui: WebUi) -> None:
    page = open_page()
    page.goto(address_of(web_ui, web_ui.finished))
    expect(scores(page)).to_be_visible()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const element = document.activeElement, style = getComputedStyle(element);
                const labelled = element.getAttribute('aria-label') ?? element.labels?.[0]?.textContent;
                return [element.tagName, labelled ?? element.textContent, style.outlineStyle];
            }"""
        )
        reached.append(focused[1])
        assert focused[0] == "BODY" or focused[2] == "solid", focused
    assert {"Round and run", "Sharpe", "xgboost", "Scores of the models", "Correlation between models"} <= set(reached)


def test_page_dag_run_without_directory_shows_an_error(browser: Browser, web_ui: WebUi) -> None:
    context = browser.new_context()
    context.add_cookies([{"name": "_token", "value": web_ui.token(), "url": web_ui.address}])
    page = context.new_page()
    page.goto(f"{web_ui.address}/{ADDRESS}?dag=numerai_tournament&dag_run=unknown")
    expect(page.get_by_role("alert")).to_contain_text("no directory yet")
    picker = page.get_by_label("Round and run")
    expect(picker).to_have_value("")
    picker.select_option(f"1335/{web_ui.half.directory.name}")  # another run can be selected
    expect(scores(page)).to_be_visible()
    context.close()


def test_page_opens_from_the_menu_and_from_a_task_link(browser: Browser, web_ui: WebUi) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto(f"{web_ui.address}/{ADDRESS}")
    assert "Not authenticated" in page.content()
    page.goto(web_ui.address)
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", web_ui.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Leaderboard").click()
    inside = page.frame_locator("iframe[title=Leaderboard]")
    expect(inside.get_by_role("table", name="Scores of the models")).to_be_visible()
    expect(inside.get_by_role("link", name="Airflow")).to_be_hidden()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "in-airflow.png")

    page.goto(f"{web_ui.address}/dags/numerai_tournament/runs/{web_ui.dag_run}")
    page.get_by_role("link", name="Leaderboard").click()
    inside = page.frame_locator("iframe[title=Leaderboard]")
    expect(inside.get_by_label("Round and run")).to_have_value(f"1335/{web_ui.finished.directory.name}")

    page.goto(f"{web_ui.address}/dags/numerai_tournament/runs/{web_ui.dag_run}/tasks/svm/details")
    page.get_by_role("link", name="Leaderboard", exact=True).click()
    expect(scores(page).locator("tr[aria-current=true]")).to_contain_text("svm")
    expect(page.get_by_role("link", name="Airflow")).to_be_visible()
    context.close()


def test_static_file_shows_the_same_page(browser: Browser, tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    board = json.loads(layout.leaderboard.read_text())
    path = write_static_page(layout)
    page = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True).new_page()
    watched = Watched(page, path.as_uri())
    page.goto(path.as_uri())
    assert column(page, "Model") == [row["model"] for row in board["models"]]
    chart = page.locator(".chart.embedding")
    chart.scroll_into_view_if_needed()
    page.get_by_text("rows, sampled evenly from all tables").wait_for()
    drawn(chart)
    assert_has_ink(chart)
    take(page, "static")
    page.context.close()
    watched.assert_quiet()


@pytest.fixture
def open_static(browser: Browser) -> Iterator[Callable[[RunLayout], Page]]:
    """Open the static page of a run, without a network."""
    opened: list[Watched] = []

    def open_one(layout: RunLayout) -> Page:
        path = write_static_page(layout)
        page = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True).new_page()
        opened.append(Watched(page, path.as_uri()))
        page.goto(path.as_uri())
        expect(scores(page)).to_be_visible()
        return page

    yield open_one
    for watched in opened:
        watched.page.context.close()
        watched.assert_quiet()


def test_scores_ranked_by_the_payout_score_show_formula_and_recent_weeks(
    open_static: Callable[[RunLayout], Page], tmp_path: Path
) -> None:
    layout = make_run(tmp_path, binary=False)
    board = json.loads(layout.leaderboard.read_text())
    page = open_static(layout)
    expect(page.get_by_text(f"Best first by the payout score, {FORMULA}")).to_contain_text(
        "over the 30 eras with all of its parts (151 to 180)"
    )
    best = board["models"][0]
    for title, name in (("Payout", "payout"), ("CORR", "corr"), ("MMC", "mmc"), ("BMC", "bmc"), ("FNC", "fnc")):
        for suffix, more in (("", ""), (", 52 w", "_52_weeks")):
            shown = column(page, f"{title}{suffix}")[0].replace("\u2212", "-").removeprefix("+")
            assert float(shown) == pytest.approx(best[f"{name}{more}"], abs=6e-5)
    assert {"Meta model", "Exposure", "Exposure, 52 w"} <= set(scores(page).locator("thead th").all_inner_texts())
    head = scores(page).get_by_role("button", name="BMC", exact=True)
    assert "v53_lgbm_ender60" in str(head.get_attribute("title"))
    expect(page.get_by_text(f"it gains +0.00021 in mean payout score of the eras, {FORMULA}")).to_be_visible()


def test_scores_not_ranked_by_the_payout_score_show_the_reason(
    open_static: Callable[[RunLayout], Page], tmp_path: Path
) -> None:
    layout = make_run(tmp_path, binary=False)
    reason = "the run has no predictions of the meta model for the scored eras"
    board = json.loads(layout.leaderboard.read_text())
    board |= {"sorted_by": "corr", "ranking": {"formula": "mean CORR", "eras": [151, 152], "fallback": reason}}
    layout.leaderboard.write_text(json.dumps(board))
    report = json.loads(layout.report("ensemble").read_text())
    report["chosen"]["ensemble_selection"] |= {"objective": "mean CORR of the eras", "fallback": "0 eras have it"}
    layout.report("ensemble").write_text(json.dumps(report))
    page = open_static(layout)
    expect(page.get_by_text("Best first by mean CORR")).to_contain_text(f"and not by the payout score: {reason}.")
    expect(page.get_by_text("Selected by mean CORR of the eras")).to_contain_text(
        "and not by the payout score: 0 eras have it."
    )
