"""How the pages become a site: `python -m sphinx -W --keep-going -b html docs site`, in the project's root."""

import importlib.util
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

import nalu_np

HERE = Path(__file__).parent
FIGURES = HERE / "_figures"
sys.path.insert(0, str(HERE))

project = "nalu_np"
release = version = nalu_np.__version__
extensions = ["myst_parser", "sphinx.ext.mathjax", "sphinx_copybutton", "apidoc"]
exclude_patterns = ["_figures", "_static"]
nitpicky = True
# "uniform" in a docstring is code, and so is --out in a table.
smartquotes = False

myst_enable_extensions = ["dollarmath"]
# An amount such as $5 is no formula, nor is what stands in $ 1 $.
myst_dmath_allow_space = False
# The anchors that code hosts give to headings, so that one link serves both.
myst_heading_anchors = 3

# One script with all glyphs in it: no page asks for a font, and a page opened from disk is not refused one.
mathjax = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
html_static_path = ["_static", f"{mathjax}/static/mathjax/tex-svg.js"]
mathjax_path = "tex-svg.js"
# Equations begin at the left, where a phone shows them; the menu would ask for files that are not here.
mathjax3_config = {"svg": {"displayAlign": "left", "displayIndent": "0"}, "options": {"enableMenu": False}}

html_theme = "furo"
html_title = f"nalu_np {release}"
html_theme_options = {
    # The colours of the figures and of an experiment's page.
    "light_css_variables": {
        "color-brand-primary": "#005f93",
        "color-brand-content": "#005f93",
        "color-brand-visited": "#5b4a8a",
        "color-foreground-primary": "#1b1f24",
        "color-foreground-secondary": "#58616c",
        "color-foreground-muted": "#58616c",
        "color-background-primary": "#ffffff",
        "color-background-secondary": "#f5f6f8",
        "color-background-border": "#d9dde3",
        "color-code-background": "#f5f6f8",
        "color-api-name": "#005f93",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6cb8ea",
        "color-brand-content": "#6cb8ea",
        "color-brand-visited": "#b9a6e8",
        "color-foreground-primary": "#e8eaed",
        "color-foreground-secondary": "#a3acb8",
        "color-foreground-muted": "#a3acb8",
        "color-background-primary": "#14171b",
        "color-background-secondary": "#1d2127",
        "color-background-border": "#363c45",
        "color-code-background": "#1d2127",
        "color-api-name": "#6cb8ea",
    },
    # The pages stand on no host where one could look at their source.
    "top_of_page_buttons": [],
}
html_css_files = ["site.css"]
# A browser refuses to read the found pages for a summary if the site is opened from disk.
summary = 'DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== "file:"'
html_js_files = [(None, {"body": summary})]
html_extra_path = ["nalu.html"]
# The pages are Markdown in the repository; a second copy of them serves nobody.
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

# The prompts and what is printed stay behind when an example is copied.
copybutton_prompt_text = ">>> |\\.\\.\\. "
copybutton_prompt_is_regexp = True


def draw_figures(app):
    """Draw the figures anew if one is older than the code that draws it or than the library."""
    sources = [*HERE.glob("figures/*.py"), *Path(nalu_np.__file__).parent.rglob("*.py")]
    drawn = [path.stat().st_mtime for path in FIGURES.glob("*.svg")]
    if not drawn or min(drawn) < max(path.stat().st_mtime for path in sources):
        import figures

        figures.draw(FIGURES)


class Plain(SphinxTransform):
    """Equations as they were written, and code without the empty line that ends a doctest."""

    default_priority = 100

    def apply(self):
        for block in self.document.findall(nodes.math_block):
            # Sphinx would put a split around several lines, and a split takes no tag.
            block["no-wrap"] = True
            block[:] = [nodes.Text(f"\\[{block.astext()}\\]")]
        for block in self.document.findall(nodes.literal_block):
            if block.rawsource == block.astext():  # else it has links in it
                block.rawsource = block.rawsource.rstrip()
                block[:] = [nodes.Text(block.rawsource)]


class DarkFigures(SphinxTransform):
    """Beside each drawn figure its variant for dark pages; the theme shows one, and only that is loaded."""

    default_priority = 100

    def apply(self):
        for image in list(self.document.findall(nodes.image)):
            drawn = FIGURES / Path(image["uri"]).name
            if "_figures/" in image["uri"] and drawn.exists():
                # With its size known, a figure that is loaded late moves nothing.
                points = re.search(r'<svg .*?width="([\d.]+)pt" height="([\d.]+)pt"', drawn.read_text("utf-8"))
                image["width"], image["height"] = (str(round(float(side) * 4 / 3)) for side in points.groups())
                image["loading"] = "lazy"
                dark = image.deepcopy()
                dark["uri"] = image["uri"].removesuffix(".svg") + "-dark.svg"
                image["classes"].append("only-light")
                dark["classes"].append("only-dark")
                image.parent.insert(image.parent.index(image) + 1, dark)


class Anchors(SphinxTransform):
    """`<a id="nalu.1*"></a>`, an anchor for code hosts, is one here too, which links are checked against."""

    default_priority = 300  # later than what would move the id into two elements of an equation

    def apply(self):
        for opening in list(self.document.findall(nodes.raw)):
            if found := re.fullmatch(r'<a id="([^"]+)">', opening.astext()):
                target = nodes.target("", "", ids=[found[1]], names=[found[1]])
                self.document.note_explicit_target(target)
                paragraph, at = opening.parent, opening.parent.index(opening)
                del paragraph[at : at + 2]
                paragraph.insert(at, target)
                if len(paragraph) == 1:
                    paragraph.replace_self(target)


def setup(app):
    app.connect("builder-inited", draw_figures)
    app.add_transform(Plain)
    app.add_transform(Anchors)
    app.add_transform(DarkFigures)
