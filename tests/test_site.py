"""The documentation: its links as a code host follows them, and the site that Sphinx makes of it, in a browser.

The tests marked `site` build it, or read the one that the environment variable SITE names.
"""

import ast
import html
import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest_plugins = ["chromium"]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
WRITTEN = [path for path in DOCS.rglob("*.md") if not path.relative_to(DOCS).parts[0].startswith("_")]
PAGES = [README, *sorted(WRITTEN)]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


@cache
def prose(path):
    """A page without its blocks of code."""
    text = re.sub(r"^(```+).*?^\1$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(    .*\n|\n)+", "", text)


def headings(path):
    return re.findall(r"^(#+) (.*)$", prose(path), flags=re.MULTILINE)


def slug(heading):
    """The anchor that a code host gives to a heading."""
    text = re.sub(r"!?\[(.*?)\]\(.*?\)", r"\1", heading).replace("$", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


@cache
def anchors(path):
    found = {}
    for _, heading in headings(path):
        name = slug(heading)
        found[name] = found.get(name, -1) + 1
    numbered = {name if i == 0 else f"{name}-{i}" for name, count in found.items() for i in range(count + 1)}
    return numbered | set(re.findall(r'<a id="([^"]+)">', prose(path)))


def links(path):
    """Where a page leads to within the project: the words as they stand, the file, the anchor."""
    text = re.sub(r"`[^`\n]+`", "", prose(path))
    for written in re.findall(r'\]\(([^)\s]+)\)|<a href="([^"]+)"', text):
        link = "".join(written)
        if not re.match(r"[a-z]+:", link):
            file, _, anchor = link.partition("#")
            yield link, ((path.parent / unquote(file)).resolve() if file else path), unquote(anchor)


@cache
def drawn():
    """What docs/figures draws when the site is built."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in DOCS.glob("figures/[!_]*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def resolves(file, anchor):
    if file.parent == DOCS / "_figures":
        return file.suffix == ".svg" and file.stem in drawn() and file.stem[0] != "_" and not anchor
    return file.is_file() and (not anchor or (file.suffix == ".md" and anchor in anchors(file)))


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    assert [link for link, file, anchor in links(ROOT / name) if not resolves(file, anchor)] == []


def test_no_page_of_the_site_leads_to_a_page_outside_of_it():
    outside = [
        (path.name, link)
        for path in PAGES[1:]
        for link, file, _ in links(path)
        if file.suffix == ".md" and not file.is_relative_to(DOCS)
    ]
    assert outside == []


def test_every_page_is_reached_from_the_readme():
    reached, ahead = set(), [README]
    while ahead:
        path = ahead.pop()
        reached.add(path)
        ahead += {file for _, file, _ in links(path) if file in PAGES} - reached
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_begins_with_its_only_title(name):
    levels = [len(marks) for marks, _ in headings(ROOT / name)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert (ROOT / name).read_text(encoding="utf-8").startswith("# ")
    assert all(below <= above + 1 for above, below in pairwise(levels))


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_of_a_table_are_as_wide_as_its_head(name):
    """A bar within a formula or a piece of code would begin another cell."""
    for table in re.findall(r"(?:^\|.*\n)+", prose(ROOT / name), flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_all_pictures_are_described():
    bare = [path.name for path in PAGES if re.search(r"!\[\s*\]", prose(path))]
    assert bare == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("A first unit by hand", "a-first-unit-by-hand"),
        ("`W_hat`, and 2 -> 1", "w_hat-and-2---1"),
        ("Why [NALU](nalu.md) fails", "why-nalu-fails"),
        ("Größe & Δ", "größe--δ"),
    ],
)
def test_anchors_are_those_of_code_hosts(heading, anchor):
    assert slug(heading) == anchor


def test_equal_headings_are_numbered(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('# A\n\n## B\n\n```\n# no heading\n```\n\n## B\n\n<a id="x.1*"></a>\n', encoding="utf-8")
    assert anchors(page) == {"a", "b", "b-1", "x.1*"}
    assert not resolves(page, "no-heading")
    assert not resolves(tmp_path / "none.md", "")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site."""
    if "SITE" in os.environ:
        return Path(os.environ["SITE"]).resolve()
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", f"{folder}-trees"]
    subprocess.run([*command, "docs", str(folder)], cwd=ROOT, check=True)
    return folder


def assets(site):
    """What is shared by pages: all that is neither a page, nor a picture, nor a table to download."""
    own = ("_images", "_downloads", "_modules", ".doctrees")  # the last is what Sphinx keeps for the next build
    return [
        path
        for path in site.rglob("*")
        if path.is_file() and path.suffix != ".html" and path.relative_to(site).parts[0] not in own
    ]


@pytest.mark.site
def test_every_page_is_in_the_site(site):
    for path in PAGES[1:]:
        assert (site / path.relative_to(DOCS)).with_suffix(".html").is_file()
    assert (site / "nalu.html").is_file()


@pytest.mark.site
def test_the_site_is_small(site):
    assert sum(path.stat().st_size for path in assets(site)) < 4e6
    for page in site.rglob("*.html"):
        names = re.findall(r'<img [^>]*src="([^":]+)"', page.read_text(encoding="utf-8"))
        shown = {page.parent / name for name in names if not name.endswith("-dark.svg")}
        assert sum(path.stat().st_size for path in {page, *shown}) < 1e6, page


@pytest.mark.site
def test_no_page_fetches_anything_from_elsewhere(site):
    for path in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", path.read_text(encoding="utf-8"))
        assert [tag for tag in tags if re.search(r'(src|href)="(https?:)?//', tag)] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


@pytest.mark.site
def test_no_anchor_is_missing(site):
    """Links of the built pages, those of the docstrings and of raw HTML among them."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(map(html.unescape, re.findall(r'\bid="([^"]*)"', text))) for path, text in pages.items()}
    missing = []
    for path, text in pages.items():
        for link in map(html.unescape, re.findall(r'<a [^>]*href="([^"]+)"', text)):
            if not re.match(r"[a-z]+:", link):
                file, _, anchor = unquote(link).partition("#")
                target = (path.parent / file).resolve() if file else path
                known = target.is_file() and (not anchor or target not in ids or anchor in ids[target])
                missing += [] if known else [(path.name, link)]
    assert missing == []


READY = """
    (async () => {
        for (const image of document.images) image.loading = "eager";
        await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
        await window.MathJax?.startup?.promise;
    })()
"""

CONTENT = "[role=main], main"

WIDER = f"""
    [...document.querySelectorAll("{CONTENT}")].flatMap(main => [...main.querySelectorAll("*")]).filter(e => {{
        if (e.closest("mjx-container")) return false;
        const outside = (r) => r.right > innerWidth + 0.5 || r.left < -0.5;
        if (!e.getBoundingClientRect().width || !outside(e.getBoundingClientRect())) return false;
        for (let box = e.parentElement; !box.matches("{CONTENT}"); box = box.parentElement)
            if (getComputedStyle(box).overflowX != "visible") return outside(box.getBoundingClientRect());
        return true;
    }}).map(e => e.outerHTML.slice(0, 80))
"""

UNRENDERED = f"""
    [...document.querySelectorAll("{CONTENT}")].flatMap(main => {{
        const walk = document.createTreeWalker(main, NodeFilter.SHOW_TEXT), found = [];
        for (let node; node = walk.nextNode();)
            if (!node.parentElement.closest("pre, code, script, style, mjx-container")
                && /\\$|\\\\[()\\[\\]]/.test(node.data)) found.push(node.data.trim());
        const wrong = [...main.querySelectorAll("mjx-merror, [data-mjx-error]")];
        const raw = [...main.querySelectorAll(".math.notranslate")].filter(e => !e.querySelector("mjx-container"));
        return [...found, ...[...wrong, ...raw].map(e => e.textContent)];
    }})
"""

PICTURES = """
    [...document.images].filter(e => !e.complete || !e.naturalWidth || !e.alt.trim()).map(e => e.src)
"""

# Text that is too like its background: less than 4.5 to 1.
PALE = """
    (() => {
        const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const known = {};
        const over = (colors) => known[colors] ??= light(colors);
        const light = (colors) => {
            for (const c of colors) { paint.fillStyle = c; paint.fillRect(0, 0, 1, 1); }
            return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
        };
        const layers = new Map([[null, ["white"]]]);
        const behind = (e) => {
            if (!layers.has(e)) layers.set(e, [...behind(e.parentElement), getComputedStyle(e).backgroundColor]);
            return layers.get(e);
        };
        return [...document.querySelectorAll("body *:not(svg *, script, style, noscript)")]
            .filter(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}))
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .map(e => [over([...behind(e), getComputedStyle(e).color]), over(behind(e)), e.outerHTML.slice(0, 80)])
            .map(([a, b, text]) => [Math.max(a, b) / Math.min(a, b), text]).filter(([ratio]) => ratio < 4.5);
    })()
"""


def complaints(browser, page, width, scheme):
    """What is wrong with a page, by kind."""
    browser.open(page, width, scheme)
    browser.ask(READY)
    asked = [params["request"]["url"] for params in browser.heard("Network.requestWillBeSent")]
    heard = browser.heard("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    found = {
        "asked": [url for url in asked if not url.startswith(("file:", "data:"))],
        "failed": browser.heard("Network.loadingFailed"),
        "heard": heard,
        "wider": browser.ask(WIDER),
        "width": [wide for wide in [browser.ask("document.documentElement.scrollWidth")] if wide > width],
        "unrendered": browser.ask(UNRENDERED),
        "pictures": browser.ask(PICTURES),
        "pale": browser.ask(PALE),
    }
    return {kind: what for kind, what in found.items() if what}


@pytest.mark.site
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_every_page_opens_from_disk_without_a_complaint(browser, site, width, scheme):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    found = {str(page.relative_to(site)): complaints(browser, page, width, scheme) for page in pages}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.site
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_variant_of_a_figure_is_shown_and_loaded(browser, site, scheme):
    page = next(path for path in sorted(site.rglob("*.html")) if "only-dark" in path.read_text(encoding="utf-8"))
    browser.open(page, 1400, scheme)
    visible = "[...document.querySelectorAll('.only-light, .only-dark')].filter(e => e.checkVisibility())"
    assert browser.ask(f"{visible}.length") > 0
    assert browser.ask(f"{visible}.every(e => e.matches('.only-{scheme}'))")
    asked = [params["request"]["url"] for params in browser.heard("Network.requestWillBeSent")]
    figures = [url for url in asked if url.endswith(".svg") and url.startswith(f"file://{site}/_images")]
    assert figures
    assert all(url.endswith("-dark.svg") == (scheme == "dark") for url in figures)


@pytest.mark.site
@pytest.mark.browser
def test_search_finds_something_from_disk(browser, site):
    browser.open(f"{site}/search.html?q=gate", 1400)
    found = """
        new Promise(done => {
            const look = () => document.querySelectorAll("#search-results li a").length;
            setInterval(() => document.querySelector(".search-summary") && done(look()), 50);
            setTimeout(() => done(look()), 5000);
        })
    """
    assert browser.ask(found) > 3
    assert browser.heard("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []


@pytest.mark.site
@pytest.mark.browser
def test_an_example_is_copied_without_its_prompts(browser, site):
    browser.open(site / "index.html", 1400)
    browser.ask("document.addEventListener('copy', event => window.copied = event.target.value)")
    click = "document.querySelector('.highlight-python .copybtn').click()"
    browser.call("Runtime.evaluate", expression=click, userGesture=True)
    copied = browser.ask("window.copied")
    assert copied.startswith("import numpy as np, nalu_np as nn\n")
    assert ">>>" not in copied
    assert "    return nn.replica(" in copied


@pytest.mark.site
@pytest.mark.browser
def test_on_a_phone_code_stands_below_its_formula(browser, site):
    page = site / "derivations" / "nalu.html"
    pairs = """
        [...document.querySelectorAll("td:has(.math) + td:last-child:has(code)")].map(
            code => [code.previousElementSibling.getBoundingClientRect(), code.getBoundingClientRect()]
        ).map(([formula, code]) => [formula.bottom <= code.top + 0.5, code.right <= innerWidth])
    """
    browser.open(page, 360)
    assert browser.ask(pairs)
    assert all(map(all, browser.ask(pairs)))
    browser.open(page, 1400)
    assert not any(below for below, _ in browser.ask(pairs))
