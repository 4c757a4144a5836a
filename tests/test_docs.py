"""What the documents say is what the library does."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nalu_np as nn
from nalu_np.cli import DEMOS

ROOT = Path(__file__).parent.parent
MODULES = [
    "nalu_np",
    *(m.name for m in pkgutil.walk_packages(nn.__path__, "nalu_np.") if "__main__" not in m.name),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", nn.__all__)
def test_every_public_name_is_documented_with_an_example(name):
    thing = getattr(nn, name)
    assert thing.__doc__
    assert ">>>" in thing.__doc__


def test_all_is_what_the_package_exports():
    public = {n for n in vars(nn) if not n.startswith("_") and not isinstance(getattr(nn, n), type(sys))}
    assert public == set(nn.__all__)


def test_the_readme_quotes_the_demonstration():
    """Every line but the seconds: nothing is approached by steps, so that four digits are the same everywhere."""
    printed = subprocess.run(
        [sys.executable, "-m", "nalu_np", "fit"], capture_output=True, text=True, check=True, cwd=Path.home()
    ).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = readme.partition("<!-- demo -->")[2].partition("With your own")[0]

    def lines(text):
        return [re.sub(r"[\d.]+ s\)", "#", line.strip()) for line in text.splitlines() if line.strip()]

    assert lines(quoted) == lines(printed)
    assert len(lines(quoted)) >= 18


def test_the_commands_of_the_readme_are_those_of_the_pipeline():
    readme, run = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    assert 'python -m pip install ".[test]" && pytest --cov -n auto' in readme
    assert 'python -m pip install --quiet ".[test]" && pytest --cov -n auto' in run


def test_version_is_one():
    assert f"version: {nn.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {nn.__version__}," in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_is_shipped():
    package = Path(nn.__file__).parent
    tables = [f"data/{name}.csv" for train, test, *_ in DEMOS.values() for name in (train, test)]
    for name in ("py.typed", *tables):
        assert (package / name).is_file()
    papers = ("LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md")
    for name in (*papers, "docs/extrapolation.png", "docs/fit.md"):
        assert (ROOT / name).stat().st_size > 500
