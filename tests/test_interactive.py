"""docs/nalu.html in a real browser: it computes what the library computes, shows that, and can be used."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_browser import CONTRAST

import nalu_np as nn
from nalu_np.units.nalu import GATES
from nalu_np.vjps import linear, log_product, mix, mse

pytest_plugins = ["chromium"]
pytestmark = pytest.mark.browser

PAGE = Path(__file__).parent.parent / "docs" / "nalu.html"
UNITS = ["matrix", "abs", "independent", "NAC", "LogNAC"]
PAIRS = ("W_hat", "M_hat", "G", "x")
CONTROLS = [f"{name}_{i}" for name in ("x", "W_hat", "M_hat", "G") for i in (1, 2)]


@pytest.fixture
def page(browser):
    """The page, freshly opened."""
    browser.open(PAGE, 1400)
    return browser


# --- what it computes -------------------------------------------------------------------------------------------


def points(unit, count=80):
    """Random values, with zeros, saturated weights and large gates among them; half of them have a target."""
    rng = np.random.default_rng(UNITS.index(unit))
    special = {
        "W_hat": [0, 10, -10],
        "M_hat": [0, 10, -10, -100],
        "G": [0, 10, -10],
        "x": [0, 1e-3, -1e-3, 1, -10],
    }
    values = {}
    for name, choices in special.items():
        drawn = rng.uniform(-5, 5, (count, 2))
        values[name] = np.where(rng.random((count, 2)) < 0.5, drawn, rng.choice(choices, (count, 2)))
    values["target"] = np.where(np.arange(count) % 2, rng.uniform(-9, 9, count), np.nan)
    return values


def expected(unit, eps, values):
    """What the library says about the points, one a replica: {name: (value, size of what was added up)}."""
    W_hat, M_hat, G = (values[name][:, :, None] for name in ("W_hat", "M_hat", "G"))
    x, target = values["x"][:, None, :], values["target"][:, None, None]
    params = {"W_hat": W_hat, "M_hat": M_hat}
    if unit in ("NAC", "LogNAC"):
        layer = nn.NAC(2, 1) if unit == "NAC" else nn.LogNAC(2, 1, eps=eps)
    else:
        layer = nn.NALU(2, 1, gate=unit, eps=eps)
        params["G"] = G[:, 0] if unit == "independent" else G
    known = layer.values(params, x)
    W = known["W"]
    a, sum_vjp = linear(x, W)
    m, product_vjp = log_product(x, W, eps=eps)
    g = known.get("g", np.full_like(a, unit == "NAC"))
    y, vjp = layer(params, x)
    without = np.isnan(target)
    loss, loss_vjp = mse(y, np.where(without, y - 0.5, target))  # y - 1/2: then dy = 1, as without a target
    dy = loss_vjp(np.ones_like(loss))
    dg, da, dm = mix(g, a, m)[1](dy)
    dx_a, dW_a = sum_vjp(da)
    dx_m, dW_m = product_vjp(dm)
    dx, dparams = vjp(dy)
    dz, dx_g, dG = np.zeros_like(dg), np.zeros_like(x), np.zeros_like(G)
    if "G" in params:
        dz = dg * g * (1 - g)
        dx_g, gate_dG = GATES[unit](x, params["G"])[1](dg)
        dG[:, : len(gate_dG[0])] = gate_dG if gate_dG.ndim == 3 else gate_dG[:, :, None]

    size = abs(a) + m
    size_dy = np.where(without, 1.0, 2 * (size + abs(target)))
    size_dg, size_dp = size_dy * size, size_dy * m
    size_dW = abs(x.mT) * size_dy + abs(np.log(abs(x.mT) + eps)) * size_dp
    size_dx = size_dy + size_dp / (abs(x) + eps) + size_dg * abs(G.mT)
    found = {
        "W": (W, 0), "a": (a, abs(x) @ abs(W)), "m": (m, 0), "g": (g, 0), "y": (y, size), "dy": (dy, size_dy),
        "loss": (np.where(without[:, 0, 0], np.nan, loss)[:, None], size_dy[:, 0] * (size + abs(target))[:, 0]),
        "dg": (dg, size_dg), "da": (da, size_dy), "dm": (dm, size_dy), "dz": (dz, size_dg),
        "dp": (dm * m, size_dp),
        "dG": (dG, size_dg * abs(x.mT) + size_dg * (unit == "independent")), "dx_g": (dx_g, size_dx),
        "dW_a": (dW_a, size_dW), "dx_a": (dx_a, size_dx), "dW_m": (dW_m, size_dW), "dx_m": (dx_m, size_dx),
        "dW": (dW_a + dW_m, size_dW), "dW_hat": (dparams["W_hat"], size_dW), "dM_hat": (dparams["M_hat"], size_dW),
        "dx": (dx, size_dx),
    }  # fmt: skip
    if "G" in params:
        assert np.array_equal(dG.reshape(len(dG), -1)[:, : params["G"][0].size], dparams["G"].reshape(len(dG), -1))
    return {name: (q.squeeze(), np.broadcast_to(s, q.shape).squeeze()) for name, (q, s) in found.items()}


@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_every_value_and_every_gradient_is_the_library_s(page, eps):
    drawn = {unit: points(unit) for unit in UNITS}
    asked = [
        {**{name: values[name][k].tolist() for name in PAIRS}, "eps": eps, "unit": unit,
         "target": None if np.isnan(values["target"][k]) else values["target"][k]}
        for unit, values in drawn.items() for k in range(80)
    ]  # fmt: skip
    answers = page.ask(f"{json.dumps(asked)}.map(nalu)")
    assert len(answers) == 400
    for n, (unit, values) in enumerate(drawn.items()):
        some = answers[80 * n : 80 * (n + 1)]
        for name, (q, size) in expected(unit, eps, values).items():
            theirs = np.array([answer[name] for answer in some], float)  # None, no loss, is nan
            assert np.array_equal(np.isnan(theirs), np.isnan(q)), (unit, name)
            off = np.nan_to_num(abs(theirs - q))
            assert (off <= 1e-9 * np.nan_to_num(np.maximum(abs(q), size))).all(), (unit, name)


def test_slopes_of_the_weights_are_their_gradients_for_a_unit_dw(page):
    W_hat, M_hat = np.meshgrid([-10, -1, 0, 0.5, 3], [-10, -2, 0, 1, 10])
    asked = [
        {"W_hat": [u, u], "M_hat": [v, v], "G": [0, 0], "x": [1, 0], "eps": 1e-7, "unit": "NAC"}
        for u, v in zip(W_hat.flat, M_hat.flat, strict=True)
    ]
    answers = page.ask(f"{json.dumps(asked, default=float)}.map(nalu)")
    params = {"W_hat": W_hat.reshape(-1, 1, 1), "M_hat": M_hat.reshape(-1, 1, 1).astype(float)}
    y, vjp = nn.NAC(1, 1)(params, np.ones((1, 1)))
    dparams = vjp(np.ones_like(y))[1]
    for name in ("W_hat", "M_hat"):
        theirs = [answer[f"by_{name}"][0] for answer in answers]
        np.testing.assert_allclose(theirs, dparams[name].squeeze(), rtol=1e-9, atol=1e-15)


# --- what it shows ----------------------------------------------------------------------------------------------

FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
STATE = """
    (() => {
        const q = id => Number(document.getElementById(id).value);
        const pair = name => [1, 2].map(i => q(`${name}_${i}_number`));
        const target = document.getElementById("target").value;
        return {
            W_hat: pair("W_hat"), M_hat: pair("M_hat"), G: pair("G"), x: pair("x"), eps: q("eps"),
            unit: document.getElementById("unit").value, target: target === "" ? null : Number(target),
        };
    })()
"""
SHOWN = """[...document.querySelectorAll("[data-show]")].map(e => [
    e.textContent, e.dataset.show.split(".").reduce((q, key) => q[key], nalu(STATE))])""".replace("STATE", STATE)


def number(text):
    """A number as the page writes it."""
    lowered = text.translate(str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789"))
    return float(lowered.replace("\u202f×\u202f10", "e"))


def check_shown(page):
    """What is displayed is what the function returns for the values in the fields; all numbers shown."""
    pairs = page.ask(SHOWN)
    for text, value in pairs:
        assert text == "–" if value is None else number(text) == pytest.approx(value, rel=5.1e-4)
        assert "-" not in text
    return [text for text, _ in pairs]


def move(page, name, value, event="input"):
    page.ask(f"""(e => {{
        e.value = "{value}";
        e.dispatchEvent(new Event("{event}", {{bubbles: true}}));
    }})(document.getElementById("{name}"))""")


def press(page, words):
    page.ask(f"[...document.querySelectorAll('button')].find(e => e.textContent.startsWith('{words}')).click()")


def shown(page):
    """All values and gradients of what is set."""
    return page.ask(f"nalu({STATE})")


def test_a_slider_and_its_field_agree_and_what_is_shown_follows(page):
    for name in CONTROLS:
        press(page, "Reset")
        seen = [check_shown(page)]
        move(page, name, -1.25)
        assert page.ask(f"document.getElementById('{name}_number').value") == "-1.25"
        seen.append(check_shown(page))
        move(page, f"{name}_number", 7.5)
        assert page.ask(f"document.getElementById('{name}').value") == "7.5"
        seen.append(check_shown(page))
        assert all(one != two for one, two in pairwise(seen)), name
        move(page, f"{name}_number", 1000)
        move(page, f"{name}_number", 1000, "change")
        assert page.ask(f"document.getElementById('{name}_number').value") == "10"


def test_options_change_what_is_shown(page):
    move(page, "x_2", 0)
    move(page, "W_hat_2", -3)
    seen = [check_shown(page)]
    for name, value in [("eps", "1e-2"), ("target", -3), *(("unit", unit) for unit in UNITS[1:])]:
        move(page, name, value, "change")
        move(page, name, value)
        seen.append(check_shown(page))
    assert all(one != two for one, two in pairwise(seen))
    assert page.ask("[...document.querySelectorAll('input:disabled')].map(e => e.id)") == [
        "G_1", "G_1_number", "G_2", "G_2_number",
    ]  # fmt: skip
    press(page, "Reset")
    page.ask("new Promise(done => setTimeout(done, 300))")
    assert page.ask("location.hash") == ""
    assert check_shown(page)[-1] == "1"


def test_numbers_are_written_with_a_minus_and_few_digits(page):
    texts = [text for text in check_shown(page) if text != "–"]
    assert all(len(text) <= 16 for text in texts)
    press(page, "Divides")
    assert any(re.fullmatch(r"−\d\.\d+\u202f×\u202f10⁵", text) for text in check_shown(page))


def test_surfaces_follow_and_say_what_they_show(page):
    page.ask(FRAME)
    pictures = "[...document.querySelectorAll('canvas')].map(e => e.toDataURL())"
    before = page.ask(pictures)
    assert len(set(before)) == len(before) == 9
    move(page, "W_hat_1", -4)
    page.ask(FRAME)
    changed = [one != two for one, two in zip(before, page.ask(pictures), strict=True)]
    assert changed == [True, True, True, False, True, True, True, True, True]  # all but the gate's
    found = shown(page)
    words = page.ask("[...document.querySelectorAll('canvas[role=img]')].map(e => e.getAttribute('aria-label'))")
    assert len(words) == 9
    values = [found["y"], found["a"], found["m"], found["g"], found["dW"][0], found["W"][0]]
    for label, value in zip(words, values, strict=False):
        assert " over " in label
        here = re.search(r"; (.+?) at the point", label)[1]
        assert number(here) == pytest.approx(value, rel=6e-3)


def test_the_colour_at_a_point_is_that_of_its_value(page):
    """A positive y is orange, a negative one blue, 0 neither; the gate is green for 1 and purple for 0."""
    colour = """(k => {
        const canvas = document.querySelectorAll("canvas")[k], context = canvas.getContext("2d");
        return [[0.75, 0.2], [0.3, 0.75]].map(([u, v]) => [...context.getImageData(
            25 + u * (canvas.width - 33), 7 + v * (canvas.height - 65), 1, 1).data]);
    })"""
    press(page, "Adds")
    page.ask(FRAME)
    (above, below), (open_, shut) = (page.ask(f"{colour}({k})") for k in (1, 3))  # a, g
    assert above[0] > above[2] + 40
    assert below[2] > below[0] + 40
    assert open_[1] > max(open_[0], open_[2]) + 40
    assert shut[1] < min(shut[0], shut[2]) - 40


@pytest.mark.parametrize(
    ("k", "names"), [(0, ("x_1", "x_2")), (6, ("W_hat_2", "M_hat_2")), (8, ("W_hat_1", "W_hat_2"))]
)
def test_a_point_can_be_dragged(page, k, names):
    page.ask(FRAME)
    place = page.ask(f"""(e => {{
        e.scrollIntoView({{block: "end"}});
        return e.getBoundingClientRect().toJSON();
    }})(document.querySelectorAll("canvas")[{k}])""")
    width, height = place["width"] - 33, place["height"] - 65

    def mouse(kind, u, v):
        at = {"x": place["x"] + 25 + (u + 10) / 20 * width, "y": place["y"] + 7 + (10 - v) / 20 * height}
        page.call("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **at)

    mouse("mousePressed", 4, -4)
    mouse("mouseMoved", 6, -6)
    mouse("mouseMoved", 6, 8)
    mouse("mouseReleased", 6, 8)
    page.ask(FRAME)
    found = [float(page.ask(f"document.getElementById('{name}_number').value")) for name in names]
    assert found == pytest.approx([6, 8], abs=0.15)
    check_shown(page)


def test_a_finger_drags_the_point_but_scrolls_elsewhere(browser):
    browser.open(PAGE, 360)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        browser.ask(FRAME)
        place = browser.ask("""(e => {
            e.scrollIntoView({block: "center"});
            return e.getBoundingClientRect().toJSON();
        })(document.querySelector("canvas"))""")
        width, height = place["width"] - 33, place["height"] - 65

        def touch(kind, *point):
            at = [{"x": place["x"] + 25 + (u + 10) / 20 * width, "y": place["y"] + 7 + (10 - v) / 20 * height}
                  for u, v in point]  # fmt: skip
            browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=at)

        x = "['x_1_number', 'x_2_number'].map(id => Number(document.getElementById(id).value))"
        before = browser.ask("scrollY")

        def drag(*path):
            for k, point in enumerate(path):
                touch("touchMove" if k else "touchStart", point)
            touch("touchEnd")

        drag((3, 2), (1, -2), (0, -6))
        assert browser.ask(x) == pytest.approx([0, -6], abs=0.2)
        assert browser.ask("scrollY") == before
        drag((-5, 5), (-5, 6), (-5, 9))
        assert browser.ask(x) == pytest.approx([0, -6], abs=0.2)
    finally:
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


# --- the cases --------------------------------------------------------------------------------------------------


def elsewhere(page, **changes):
    return page.ask(f"nalu({{...{STATE}, ...{json.dumps(changes)}}})")


def sentence(page):
    return page.ask("document.getElementById('sentence').textContent")


def test_a_case_is_pressed_until_something_is_changed(page):
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map(e => e.textContent)"
    assert page.ask(pressed) == []
    names = page.ask("[...document.querySelectorAll('[aria-pressed]')].map(e => e.textContent)")
    assert len(names) == 6
    sentences = set()
    for name in names:
        press(page, name)
        assert page.ask(pressed) == [name]
        sentences.add(sentence(page))
        check_shown(page)
    assert len(sentences) == 6
    move(page, "x_1", 5)
    assert page.ask(pressed) == []


def test_adds_and_multiplies(page):
    press(page, "Adds")
    assert shown(page)["y"] == pytest.approx(5, abs=1e-3)
    assert shown(page)["g"] == pytest.approx(1)
    assert elsewhere(page, x=[-3, -2])["y"] == pytest.approx(6, abs=1e-3)
    press(page, "Multiplies")
    assert shown(page)["y"] == pytest.approx(6, abs=1e-3)
    assert shown(page)["g"] == pytest.approx(0)


def test_the_singularity(page):
    press(page, "Divides")
    assert shown(page)["y"] == pytest.approx(1000, rel=1e-3)
    assert shown(page)["dx"][1] == pytest.approx(-1e6, rel=1e-2)
    assert elsewhere(page, x=[1, 0])["m"] == pytest.approx(1e7, rel=1e-2)
    assert elsewhere(page, x=[1, 0], eps=1e-2)["m"] == pytest.approx(100, rel=1e-2)


def test_at_the_goal_gradients_vanish(page):
    press(page, "The goal")
    before = shown(page)
    assert before["W"][0] == pytest.approx(-1, abs=1e-4)
    assert before["loss"] == pytest.approx(36, rel=1e-3)
    assert before["dW"][0] == pytest.approx(-36, rel=1e-3)
    assert before["dW_hat"][0] == pytest.approx(-3e-7, rel=0.02)
    press(page, "100 steps")
    assert shown(page)["loss"] == pytest.approx(36, rel=1e-3)


def test_descent_is_a_hundred_steps_of_it(page):
    move(page, "target", 3)
    start = page.ask(STATE)
    params = {name: np.array(start[name]).reshape(1, 2, 1) for name in ("W_hat", "M_hat", "G")}
    layer, x = nn.NALU(2, 1), np.array([start["x"]], float)
    for _ in range(100):
        y, vjp = layer(params, x)
        dparams = vjp(2 * (y - 3))[1]
        params = {name: np.clip(q - 0.1 * dparams[name], -10, 10) for name, q in params.items()}
    press(page, "100 steps")
    for name, q in params.items():
        assert page.ask(STATE)[name] == pytest.approx(q.ravel().tolist(), abs=2e-6)
    assert shown(page)["loss"] < 1e-6


def test_the_gate_swaps(page):
    press(page, "Flip the sign")
    assert page.ask(STATE)["x"] == [-3, -2]
    assert shown(page)["y"] == pytest.approx(6, abs=1e-3)
    there = elsewhere(page, x=[3, 2])
    assert there["y"] == pytest.approx(5, abs=1e-3)
    assert there["g"] == pytest.approx(1 - shown(page)["g"])
    for unit in ("abs", "independent"):
        assert elsewhere(page, unit=unit)["y"] == pytest.approx(-5, abs=1e-3)


def test_the_sign_is_lost(page):
    press(page, "The lost sign")
    assert page.ask(STATE)["target"] == -6
    assert shown(page)["y"] == pytest.approx(6, abs=1e-3)
    quadrants = [elsewhere(page, x=[u, v])["m"] for u in (3, -3) for v in (2, -2)]
    assert len(set(quadrants)) == 1
    label = page.ask(f"{FRAME}.then(() => document.querySelectorAll('canvas')[2].getAttribute('aria-label'))")
    assert number(re.search(r"between (.+?) and", label)[1]) >= 0


# --- the address ------------------------------------------------------------------------------------------------


def test_a_view_can_be_linked_to(page):
    press(page, "Divides")
    move(page, "target", 0.5)
    move(page, "gradient", "dG.1", "change")
    state, link = page.ask(STATE), page.ask("document.getElementById('link').href")
    page.call("Page.navigate", url="about:blank")  # else it would be one document, and nothing be loaded
    page.open(f"{PAGE}{link[link.index('#') :]}", 1400)
    assert page.ask(STATE) == state
    assert page.ask("document.getElementById('gradient').value") == "dG.1"
    check_shown(page)
    page.ask("location.hash = '#x_1=-2&W_hat_1=nonsense&M_hat_2=99&unit=%3Cb%3E&eps=7&target='")
    page.ask(f"new Promise(done => setTimeout(done, 50)).then(() => {FRAME})")
    assert page.ask(STATE) == {
        "W_hat": [0.6, 1.8], "M_hat": [1.4, 10], "G": [0.4, -0.2], "x": [-2, 2], "eps": 1e-7, "unit": "matrix",
        "target": None,
    }  # fmt: skip
    page.ask("new Promise(done => setTimeout(done, 300))")
    assert page.ask("location.hash") == "#x_1=-2&M_hat_2=10"


# --- that it can be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_asks_for_nothing_complains_of_nothing_and_fits(browser, width, scheme):
    browser.open(PAGE, width, scheme)
    for case in ("Divides", "The goal", "The lost sign"):
        press(browser, case)
        browser.ask(FRAME)
        assert browser.ask("innerWidth") == width
        assert browser.ask("document.documentElement.scrollWidth") <= width
        outside = """[...document.querySelectorAll("main *:not(.unseen)")].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && (r.right > innerWidth + 0.5 || r.left < -0.5);
        }).map(e => e.outerHTML.slice(0, 80))"""
        assert browser.ask(outside) == []
        assert browser.ask(CONTRAST) >= 4.5
    asked = [params["request"]["url"] for params in browser.heard("Network.requestWillBeSent")]
    assert asked == [f"file://{PAGE}"]
    assert browser.heard("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []


def test_it_is_one_small_file():
    text = PAGE.read_text()
    assert len(text.encode()) < 100_000
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|@import|url\(|<script[^>]+src", text)


def test_day_and_night_have_colours_of_their_own(browser):
    looks = []
    for scheme in ("light", "dark"):
        browser.open(PAGE, 1400, scheme)
        browser.ask(FRAME)
        pictures = "...[...document.querySelectorAll('canvas')].map(e => e.toDataURL())"
        looks.append(browser.ask(f"[getComputedStyle(document.body).backgroundColor, {pictures}]"))
    assert all(day != night for day, night in zip(*looks, strict=True))
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.ask(f"{FRAME}.then(() => {FRAME})")
    assert browser.ask("document.querySelector('canvas').toDataURL()") == looks[0][1]


def test_everything_has_a_name(page):
    controls = "input, select, button, a, canvas, form, [role=group]"
    nameless = (
        f"[...document.querySelectorAll('{controls}')]"
        """.filter(e => {
        const by = e.getAttribute("aria-label") || [...(e.labels || [])].map(l => l.textContent).join("");
        return !(by || (e.matches("a, button") ? e.textContent : "")).trim();
    }).map(e => e.outerHTML)"""
    )
    page.ask(FRAME)  # canvases are named when they are drawn
    assert page.ask(nameless) == []
    assert page.ask("[...document.querySelectorAll('[aria-describedby]')].every("
                    "e => document.getElementById(e.getAttribute('aria-describedby')))")  # fmt: skip
    ids = page.ask("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    page.ask("new Promise(done => setTimeout(done, 1000))")
    assert page.ask("document.querySelector('[role=status]').textContent").startswith("y is ")


def key(page, name, code):
    for kind in ("rawKeyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)


def test_the_keyboard_reaches_every_control_in_order_and_moves_it(page):
    page.call("Emulation.setFocusEmulationEnabled", enabled=True)
    page.ask("document.querySelectorAll('input, select, button, a').forEach((e, k) => { e.dataset.order = k; })")
    enabled = page.ask("[...document.querySelectorAll('[data-order]:enabled, a')].map(e => +e.dataset.order)")
    assert len(enabled) == 6 + 16 + 3 + 2 + 1  # cases, sliders and fields, options, link and reset, gradient
    reached = []
    for _ in enabled:
        key(page, "Tab", 9)
        focused = "(e => [+e.dataset.order, getComputedStyle(e).outlineStyle])(document.activeElement)"
        order, ring = page.ask(focused)
        reached.append(order)
        assert ring == "solid"
    assert reached == enabled
    page.ask("document.getElementById('x_1').focus()")
    before = check_shown(page)
    key(page, "ArrowRight", 39)
    assert float(page.ask("document.getElementById('x_1_number').value")) == 3.05
    assert check_shown(page) != before


def test_nothing_moves_by_itself(page):
    moving = """[...document.querySelectorAll("*")].filter(e => {
        const {transitionDuration, animationName} = getComputedStyle(e);
        return transitionDuration !== "0s" || animationName !== "none";
    }).length"""
    assert page.ask(moving) == 0
