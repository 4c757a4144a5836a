"""The page in a real browser: it opens from disk without a complaint or a request, nothing is wider than it."""

from dataclasses import replace

import pytest
import toy_experiment

from nalu_np import cli
from nalu_np.experiments import EXPERIMENTS

pytest_plugins = ["chromium"]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "toy", toy_experiment.toy("nan"))
        folder = tmp_path_factory.mktemp("toy") / "out"
        assert cli.main(["run", "toy", "--out", str(folder)]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module", params=["static", "gate"])
def real(request, tmp_path_factory):
    """A page of an experiment that was trained for a moment."""
    experiment = EXPERIMENTS[request.param]
    configs = [{**config, "steps": 20} for config in experiment.cells("quick", 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, experiment.name, replace(experiment, cells=lambda scale, seeds: configs))
        folder = tmp_path_factory.mktemp(experiment.name) / "out"
        assert cli.main(["run", experiment.name, "--out", str(folder)]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_opens_without_a_complaint_and_nothing_is_wider_than_the_page(browser, page, width, scheme):
    check(browser, page, width, scheme)


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_so_do_pages_of_real_experiments(browser, real, width, scheme):
    check(browser, real, width, scheme)
    assert browser.ask(CONTRAST) >= 4.5


def check(browser, page, width, scheme):
    browser.open(page, width, scheme)
    asked = [params["request"]["url"] for params in browser.heard("Network.requestWillBeSent")]
    assert asked == [f"file://{page}"]
    assert browser.heard("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth") <= width
    outside = """
        [...document.querySelectorAll("main *:not(.box *)")].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && (r.right > innerWidth + 0.5 || r.left < -0.5);
        }).map(e => e.outerHTML.slice(0, 80))
    """
    assert browser.ask(outside) == []


CONTRAST = """
    (() => {
        const channels = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const light = (c) => channels(c).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (e) => {
            for (; e; e = e.parentElement) {
                const c = getComputedStyle(e).backgroundColor;
                if (!/, 0\\)$|transparent/.test(c)) return c;
            }
        };
        return Math.min(...[...document.querySelectorAll("main *:not(svg *)")]
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .map(e => [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a))
            .map(([a, b]) => (a + 0.05) / (b + 0.05)));
    })()
"""


def test_text_stands_out_by_day_and_by_night(browser, page):
    lights = {}
    for scheme in ("light", "dark"):
        browser.open(page, 1400, scheme)
        assert browser.ask(CONTRAST) >= 4.5
        lights[scheme] = browser.ask("getComputedStyle(document.body).backgroundColor")
        paper = browser.ask("getComputedStyle(document.querySelector('svg')).backgroundColor")
        assert paper == {"light": "rgba(0, 0, 0, 0)", "dark": "rgb(245, 246, 248)"}[scheme]
    assert lights["light"] != lights["dark"]


def test_the_main_figure_is_on_the_first_screen(browser, page):
    browser.open(page, 1400)
    assert browser.ask("document.querySelector('figure svg').getBoundingClientRect().bottom") < 900


def test_the_main_figure_of_real_experiments_is_on_the_first_screen(browser, real):
    browser.open(real, 1400)
    assert browser.ask("document.querySelector('figure svg').getBoundingClientRect().bottom") < 900
    assert browser.ask("document.querySelectorAll('.cards li').length") in range(1, 7)


def test_on_a_phone_a_row_is_seen_without_scrolling(browser, real):
    browser.open(real, 400)
    assert browser.ask("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.wide').parentElement)")
    lines = browser.ask("""
        [...document.querySelectorAll(".wide tbody tr:not(.group)")].map(
            row => [...row.querySelectorAll("th, td:not(.interval, .note)")].map(e => e.getBoundingClientRect())
        ).map(cells => [cells.length, Math.max(...cells.map(r => r.right)), new Set(cells.map(r => r.top)).size])
    """)
    assert lines
    assert all(count == 4 and right <= 400 and tops == 1 for count, right, tops in lines)


def test_it_can_be_printed(browser, page):
    browser.open(page, 1400, "dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.call("Page.printToPDF")["data"].startswith("JVBER")  # %PDF
