"""The picture of a fit: every point is where it should be, no name does harm, and the bytes are the same again."""

import errno
import os
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_rgba

import nalu_np as nn
from nalu_np import plots, store
from nalu_np.errors import FileError, NaluError
from nalu_np.learn import Plan, learn
from nalu_np.plots import check_drawable, draw_fit, figure
from nalu_np.tasks.tables import Table

SUFFIXES = [".png", ".svg", ".pdf"]
HOSTILE = [
    "$x",
    r"$\frac{$",
    "_",
    "a\nb",
    "\x1b[31m",
    "\u202eabc",
    "\ud800",
    "",
    "名前",
    "W" * 200,
    "%s{0}",
    r"\alpha",
]
NAMES = st.sampled_from(HOSTILE) | st.text(max_size=60)


def table(x, y, names=None, path="made.csv"):
    values = np.column_stack([x, y])
    lines = tuple(range(2, len(values) + 2))
    names = (*"abcdefgh"[: values.shape[1] - 1], "y") if names is None else (*names, "y")
    return Table(path, names, values, (), lines, tuple(f"line {n}" for n in lines))


def product(x):
    return x.prod(axis=1)


def fitted(law=product, *, low=1.0, high=2.0, beyond=6.0, rows=40, tested=12, columns=2, names=None, **plan):
    """Learned inside a range; the first half of the test lies inside, the other beyond; none without `tested`."""
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, (rows, columns))
    x[:2] = np.array([[low], [high]])
    t = np.concatenate(
        [rng.uniform(low, high, (tested // 2, columns)), rng.uniform(high + 1, beyond, (tested // 2, columns))]
    )
    test = table(t, law(t), names) if tested else None
    return learn(table(x, law(x), names), "y", test=test, plan=Plan(**{"seeds": 5, **plan}))


PRODUCT = fitted()
UNTESTED = fitted(tested=0)
FEW = fitted(rows=6)
NALU = fitted(unit="nalu", seeds=3, steps=30)
CHAIN = fitted(unit="nalu", seeds=3, steps=30, layers=2)
HOPELESS = fitted(lambda x: np.sin(3 * x[:, 0]) + x[:, 1], low=-2, high=2, rows=200)
ALL = {
    "product": PRODUCT,
    "one seed": fitted(seeds=1),
    "sum": fitted(lambda x: x @ [1.0, -1.0]),
    "scale": fitted(lambda x: 7 * x[:, 0], scale=True),
    "few": FEW,
    "untested": UNTESTED,
    "nalu": NALU,
    "lognac": fitted(unit="lognac", seeds=2, steps=30),
    "chain": CHAIN,
    "hopeless": HOPELESS,
    "five columns": fitted(columns=5),
    "wide": fitted(columns=15, rows=60, names=[f"the column number {i}" for i in range(15)]),
}


def points(axes, start):
    """Coordinates (N, 2) of all points of a set, those at the edge among them."""
    lines = [line.get_xydata() for line in axes.lines if (line.get_gid() or "").startswith(start)]
    every = np.concatenate([np.zeros((0, 2)), *lines])
    return every[np.isfinite(every).all(axis=1)]


def rows_of(learned, *names):
    """Those of all rows, each once, and which lie outside."""
    parts = [learned.trained, *([] if learned.left_one_out else [learned.held_out])]
    parts += [] if learned.test is None else [learned.test]
    outside = np.concatenate([learned.outside(part) for part in parts])
    return (*(np.concatenate([getattr(part, name) for part in parts]) for name in names), outside)


def changed(learned, **columns):
    """The same with other targets or predictions: arrays, or functions of what was there."""

    def change(part, at):
        new = {n: f(getattr(part, n)) if callable(f) else f[at : at + len(part.y)] for n, f in columns.items()}
        return replace(part, **new)

    trained, held_out = change(learned.trained, 0), change(learned.held_out, len(learned.trained.y))
    test = learned.test and change(learned.test, len(trained.y) + len(held_out.y))
    return replace(learned, trained=trained, held_out=held_out, test=test)


# --- what every picture has -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_finite_prediction_is_drawn_where_it_is_inside_and_outside_told_apart(name):
    learned = ALL[name]
    left, _ = figure(learned, "t", "").axes
    y, network, formula, outside = rows_of(learned, "y", "network", "formula")
    assert outside.sum() == (0 if learned.test is None else 6)
    for kind, prediction in (("network", network), ("formula", formula)):
        for where, rows in (("inside", ~outside), ("outside", outside)):
            expected = np.stack([y, prediction], axis=1)[rows & np.isfinite(prediction)]
            if kind == "formula" and learned.formula is None:
                expected = expected[:0]
            found = points(left, f"{kind}-{where}")
            assert len(found) == len(expected)
            if name in ("five columns", "wide"):  # over so many decades
                expected = np.log10(expected)
            if name != "hopeless":
                np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(expected, axis=0))


@pytest.mark.parametrize("name", ALL)
def test_the_weights_of_all_seeds_are_drawn_and_the_chosen_ones_marked(name):
    learned = ALL[name]
    _, right = figure(learned, "t", "").axes
    values = learned.layer.values(
        {k: np.asarray(v, "float64") for k, v in learned.chosen.seeds.items()}, learned.trained.x[:1]
    )
    W = values["0.W" if name == "chain" else "W"]  # (S, I, O)
    shown = right.get_xticks()
    columns = [learned.features.index(t.get_text()) for t in right.get_xticklabels()] if name != "wide" else None
    if columns is None:
        columns = np.sort(np.argsort(-np.abs(W[0, :, 0]), kind="stable")[:12])
    assert len(shown) == min(len(learned.features), 12)
    for output in range(W.shape[-1]):
        found, expected = points(right, f"seeds-{output}"), W[:, columns, output]
        assert found.shape == (expected.size, 2)
        low, high = right.get_ylim()
        np.testing.assert_array_equal(np.sort(found[:, 1]), np.sort(np.clip(expected, low, high).ravel()))
        offset = (output - (W.shape[-1] - 1) / 2) * 0.8 / W.shape[-1]
        for i, column in enumerate(expected.T):  # each over its own name
            here = found[np.abs(found[:, 0] - i - offset) < 0.4 / W.shape[-1]]
            np.testing.assert_array_equal(np.sort(here[:, 1]), np.sort(np.clip(column, low, high)))
        marked = points(right, f"chosen-{output}")
        assert any((marked[:, 1] == seed).all() for seed in expected)
        np.testing.assert_allclose(marked[:, 0], np.arange(len(columns)) + offset)
    stable = [line.get_ydata()[0] for line in right.lines if line.get_gid() == "stable"]
    assert (np.array(stable) * 2 % 1 == 0).all()
    assert {0, 0.5, 1} <= set(stable)


@pytest.mark.parametrize("name", ALL)
def test_nothing_covers_anything_and_nothing_is_cut_off(name):
    drawn = figure(ALL[name], "The title of a table", "and of another")
    drawn.draw_without_rendering()
    boxes = [legend.get_window_extent() for legend in drawn.legends] + [drawn._suptitle.get_window_extent()]
    plots_ = [axes.get_tightbbox() for axes in drawn.axes]
    left, right = (axes.get_window_extent() for axes in drawn.axes)
    assert left.x1 < right.x0
    assert not any(box.overlaps(other) for box in boxes for other in plots_)
    assert not boxes[0].overlaps(boxes[1])
    width, height = drawn.get_size_inches() * drawn.dpi
    for box in [*boxes, *plots_]:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    assert min(left.height, right.height) > 0.35 * height


SCALES = [-1e300, -1.0, -1e-6, 1e-6, 1.0, 1e5, 1e300]


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_finite_number_of_predictions_is_drawn_or_noted(data):
    """Over targets of all magnitudes and predictions however wrong."""
    n = len(rows_of(PRODUCT, "y")[0])
    kind = data.draw(st.sampled_from(["any", "positive", "negative", "constant"]))
    numbers = st.floats(-1e308, 1e308) | st.floats(-5, 5) | st.sampled_from([0.0, 5e-324, 1.0])
    y = data.draw(arrays(float, n, elements=numbers))
    y = {"any": y, "positive": np.abs(y) + 1e-9, "negative": -np.abs(y) - 1e-9, "constant": y[:1].repeat(n)}[kind]
    wrong = arrays(float, n, elements=st.floats() | st.sampled_from([np.nan, 0.0, *SCALES]))
    network = np.where(data.draw(arrays(bool, n)), y, data.draw(wrong))
    learned = changed(PRODUCT, y=y, network=network, formula=y)
    drawn = figure(learned, "t", "")
    left, _ = drawn.axes
    drawn.draw_without_rendering()
    _, outside = rows_of(learned, "y")
    finite = np.isfinite(network)
    for where, rows in (("inside", ~outside), ("outside", outside)):
        assert len(points(left, f"network-{where}")) == (finite & rows).sum()
        assert len(points(left, f"formula-{where}")) == rows.sum()
        at = points(left, f"formula-{where}")
        np.testing.assert_array_equal(at[:, 0], at[:, 1])  # where right, on the diagonal
        assert ((at > left.get_xlim()[0]) & (at < left.get_xlim()[1])).all()
        assert ((at > left.get_ylim()[0]) & (at < left.get_ylim()[1])).all()
        assert np.isfinite(points(left, f"network-{where}")).all()
    missing = f"not finite, not drawn: {(~finite).sum()} predictions"
    assert (missing in left.get_xlabel()) == (not finite.all())
    beyond = len(points(left, "network-inside-beyond")) + len(points(left, "network-outside-beyond"))
    assert (f"triangles: {beyond} predictions" in left.get_xlabel()) == (beyond > 0)


@settings(max_examples=15, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=2, unique=True), NAMES, NAMES, NAMES)
def test_hostile_names_are_escaped_and_never_taken_for_mathematics(names, target, title, test_title):
    drawn = figure(replace(PRODUCT, features=tuple(names), target=target), title, test_title)
    with plots._plain_style():
        drawn.draw_without_rendering()
    for text in drawn.findobj(mpl.text.Text):
        assert all(line.isprintable() for line in text.get_text().split("\n"))
        assert not text.get_parse_math() or "$" not in text.get_text()


# --- what a picture says ----------------------------------------------------------------------------------------


def test_the_title_says_the_formula_and_how_good_it_is():
    title = figure(PRODUCT, "laws.csv", "beyond.csv")._suptitle.get_text()
    assert title == "laws.csv; test: beyond.csv\nexact: y = a * b"
    about = replace(PRODUCT, exact=False)
    assert figure(about, "laws.csv", "")._suptitle.get_text() == "laws.csv\nabout: y = a * b"
    assert HOPELESS.formula is None
    assert figure(HOPELESS, "sine.csv", "")._suptitle.get_text() == "sine.csv\nno formula holds"


def test_a_long_title_shrinks_until_it_fits():
    drawn = figure(replace(PRODUCT, target="W" * 40), "W" * 100, "$W" * 50)
    drawn.draw_without_rendering()
    assert drawn._suptitle.get_window_extent().width < 1500
    assert drawn._suptitle.get_fontsize() < 11
    assert figure(PRODUCT, "t", "")._suptitle.get_fontsize() == 11


@pytest.mark.parametrize(
    ("name", "title", "label"),
    [
        ("product", "Exponents of 5 seeds", "exponent"),
        ("one seed", "Exponents of 1 seed", "exponent"),
        ("sum", "Weights of 5 seeds", "weight"),
        ("lognac", "Exponents of 2 seeds", "exponent"),
        ("nalu", "Weights of 3 seeds", "weight or exponent"),
        ("chain", "Weights of 3 seeds, first of 2 layers", "weight or exponent"),
    ],
)
def test_the_right_panel_says_what_it_shows(name, title, label):
    left, right = figure(ALL[name], "t", "").axes
    assert right.get_title("left") == title
    assert right.get_ylabel() == label
    assert [t.get_text() for t in right.get_xticklabels()] == ["a", "b"]
    assert (left.get_xlabel().split("\n")[0], left.get_ylabel()) == ("true y", "predicted")


def test_legends_name_what_is_there_and_nothing_else():
    def legends(learned):
        return [[t.get_text() for t in legend.get_texts()] for legend in figure(learned, "t", "").legends]

    always = ["targets learned from", "predicted = true"]
    network = ["network, inside the range", "network, outside the range"]
    formula = ["formula, inside the range", "formula, outside the range"]
    weights = ["multiples of 1/2", "each seed", "the chosen network"]
    assert legends(PRODUCT) == [[*always, *network, *formula], weights]
    assert legends(UNTESTED) == [[*always, network[0], formula[0]], weights]
    assert legends(HOPELESS) == [[*always, *network], weights]
    outputs = ["multiples of 1/2", "each seed, output 1", "the chosen network", "each seed, output 2"]
    assert legends(CHAIN)[1] == outputs


def test_sets_of_points_differ_in_colour_and_in_marker_and_the_formula_is_hollow():
    left, _ = figure(PRODUCT, "t", "").axes
    styles = {
        line.get_gid(): (to_rgba(line.get_color()), line.get_marker(), line.get_markerfacecolor() == "none")
        for line in left.lines
        if line.get_gid()
    }
    blue, red = to_rgba("#0072B2"), to_rgba("#D55E00")
    assert styles == {
        "network-inside": (blue, "o", False),
        "network-outside": (red, "s", False),
        "formula-inside": (blue, "o", True),
        "formula-outside": (red, "s", True),
    }


@pytest.mark.parametrize("learned", [PRODUCT, FEW], ids=["held out", "left out one at a time"])
def test_the_band_covers_the_targets_learned_from_and_the_diagonal_all(learned):
    left, _ = figure(learned, "t", "").axes
    known = np.concatenate([learned.trained.y, learned.held_out.y])
    (band,) = left.patches
    np.testing.assert_allclose([band.get_x(), band.get_x() + band.get_width()], [known.min(), known.max()])
    (diagonal,) = (line for line in left.lines if line.get_label() == "predicted = true")
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_array_equal(diagonal.get_xdata(), left.get_xlim())


def test_wrong_predictions_squash_nothing():
    """Those a little off widen the view; those far off lie at its edge, on the side where they are."""
    y, _ = rows_of(PRODUCT, "y")
    span = np.ptp(y)
    network = y.copy()
    network[:4] = [1e9, -1e9, y.max() + 0.2 * span, 1e300]
    left, _ = figure(changed(PRODUCT, network=network), "t", "").axes
    low, high = left.get_ylim()
    assert y.min() - span < low < y.min() - 0.5 * span
    assert y.max() + 0.5 * span < high < y.max() + span
    assert left.get_xlim()[1] < y.max() + 0.2 * span
    at = points(left, "network-inside")
    edge = points(left, "network-inside-beyond")
    np.testing.assert_array_equal(edge, [[y[1], low], [y[0], high], [y[3], high]])
    assert [y[2], network[2]] in at.tolist()
    carets = [line.get_marker() for line in left.lines if line.get_gid() == "network-inside-beyond"]
    assert carets == [mpl.markers.CARETDOWN, mpl.markers.CARETUP]
    assert left.get_xlabel() == "true y\ntriangles: 3 predictions beyond the view"
    near, _ = figure(PRODUCT, "t", "").axes
    np.testing.assert_allclose(near.get_ylim(), near.get_xlim())


@pytest.mark.parametrize("sign", [1, -1])
def test_targets_of_one_sign_over_two_decades_are_drawn_by_their_logarithms(sign):
    y = sign * np.geomspace(0.5, 5000, 52)
    network = y.copy()
    network[0] *= -1
    network[1] = 0
    drawn = figure(changed(PRODUCT, y=y, network=network, formula=y), "t", "")
    left, _ = drawn.axes
    drawn.draw_without_rendering()
    at = np.concatenate([points(left, f"formula-{where}") for where in ("inside", "outside")])
    np.testing.assert_allclose(np.sort(at[:, 0]), np.sort(sign * np.log10(np.abs(y))))
    edge = points(left, "network-inside-beyond")
    np.testing.assert_array_equal(edge[:, 1], [left.get_ylim()[sign < 0]] * 2)  # beyond 0
    ticks = {round(t.get_position()[0]): t.get_text() for t in left.get_xticklabels()}
    assert ticks[sign * 2] == ("$10^{2}$" if sign > 0 else "$-10^{2}$")
    minor = left.xaxis.get_minorticklocs()
    assert np.isclose(minor, sign * np.log10(30)).any()
    assert ((minor >= left.get_xlim()[0]) & (minor <= left.get_xlim()[1])).all()
    many = figure(changed(PRODUCT, y=y**9, network=y**9, formula=y**9), "t", "").axes[0]
    assert not len(many.xaxis.get_minorticklocs())


@pytest.mark.parametrize(
    "y",
    [
        np.full(52, 5e-324),
        np.linspace(1, 99, 52),
        np.linspace(0, 1e6, 52),
        np.r_[-1.0, np.geomspace(1, 1e6, 51)],
        np.zeros(52),
    ],
    ids=["all tiny", "few decades", "zero", "both signs", "all zero"],
)
def test_other_targets_are_drawn_as_they_are(y):
    left, _ = figure(changed(PRODUCT, y=y, network=y, formula=y), "t", "").axes
    at = np.concatenate([points(left, f"network-{where}") for where in ("inside", "outside")])
    np.testing.assert_array_equal(np.sort(at[:, 0]), np.sort(y))
    assert left.get_ylabel() == "predicted"


def test_huge_targets_have_a_unit():
    y = np.linspace(-1.7, 1.7, 52) * 1e308
    left, _ = figure(changed(PRODUCT, y=y, network=y, formula=y), "t", "").axes
    assert left.get_ylabel() == "predicted / 1e+200"
    assert left.get_xlim()[1] > 1.7e108


def test_weights_far_off_and_weights_that_are_none():
    W = np.array([[1.0, 1.0], [1e6, 1.0], [np.nan, np.inf], [1.2, -2.0]])[..., None]
    learned = replace(PRODUCT, chosen=replace(PRODUCT.chosen, seeds={"W": W}))
    _, right = figure(learned, "t", "").axes
    low, high = right.get_ylim()
    assert -2 < low < -1.5
    assert 2.5 < high < 3
    np.testing.assert_array_equal(np.sort(points(right, "seeds-0")[:, 1]), [low, 1, 1, 1, 1.2, high])
    notes = "not finite, not drawn: 2 weights\ntriangles: 2 weights beyond the view"
    assert right.get_xlabel() == notes


def test_large_weights_have_no_lines_between():
    W = np.full((5, 2, 1), 100.0)
    learned = replace(PRODUCT, chosen=replace(PRODUCT.chosen, seeds={"W": W}, params={"W": W[0]}))
    drawn = figure(learned, "t", "")
    assert not [line for line in drawn.axes[1].lines if line.get_gid() == "stable"]
    lines = [line for line in figure(scaled_weights(3), "t", "").axes[1].lines if line.get_gid() == "stable"]
    np.testing.assert_array_equal([line.get_ydata()[0] for line in lines], np.arange(0, 6.5, 0.5))
    np.testing.assert_array_equal(figure(scaled_weights(3), "t", "").axes[1].get_yticks(), range(7))


def scaled_weights(factor):
    W = np.array([[[2.0], [1.0]]]) * factor
    return replace(PRODUCT, chosen=replace(PRODUCT.chosen, seeds={"W": W}, params={"W": W[0]}))


def test_separate_weights_of_the_two_paths_are_shown_side_by_side():
    layer = nn.NALU(2, 1, tied=False)
    seeds = layer.init(replicas=4)
    learned = replace(NALU, chosen=replace(NALU.chosen, layer=layer, seeds=seeds, params=nn.replica(seeds, 2)))
    drawn = figure(learned, "t", "")
    labels = [t.get_text() for t in drawn.legends[1].get_texts()]
    assert labels == ["multiples of 1/2", "each seed, sum", "the chosen network", "each seed, product"]
    values = layer.values({n: v.astype("float64") for n, v in seeds.items()}, np.ones((1, 2)))
    for i, name in enumerate(("W_a", "W_m")):
        np.testing.assert_array_equal(points(drawn.axes[1], f"chosen-{i}")[:, 1], values[name][2, :, 0])


def test_of_a_wide_table_the_columns_with_the_largest_weights_are_shown():
    _, right = figure(ALL["wide"], "t", "").axes
    assert right.get_xlabel() == "12 of 15 columns, those with the largest weights"
    W = np.zeros((2, 15, 1))
    W[0, [3, 14], 0] = 1, -2
    W[1, 0] = 9
    learned = replace(ALL["wide"], chosen=replace(ALL["wide"].chosen, seeds={"W": W}, params={"W": W[0]}))
    _, right = figure(learned, "t", "").axes
    names = [t.get_text() for t in right.get_xticklabels()]
    assert names == [f"the colu…{f'number {i}'[-8:]}" for i in [*range(11), 14]]
    np.testing.assert_array_equal(points(right, "chosen-0")[:, 1], [0, 0, 0, 1, *[0] * 7, -2])
    assert {t.get_rotation() for t in right.get_xticklabels()} == {35.0}
    assert {t.get_rotation() for t in figure(PRODUCT, "t", "").axes[1].get_xticklabels()} == {0.0}


def test_jitter_keeps_the_dots_of_a_column_apart_and_to_themselves():
    _, right = figure(fitted(seeds=64), "t", "").axes
    at = points(right, "seeds-0")[:, 0]
    first, second = np.sort(at[at < 0.5]), np.sort(at[at > 0.5])
    assert len(first) == len(second) == 64
    np.testing.assert_allclose(first, second - 1)
    assert np.diff(first).min() > 0.2 / 64
    assert -0.33 < first[0] < -0.3
    assert 0.3 < first[-1] < 0.33
    _, right = figure(ALL["one seed"], "t", "").axes
    np.testing.assert_array_equal(points(right, "seeds-0")[:, 0], [0, 1])


def test_on_a_device_too(device):
    learned = fitted(unit="nalu", seeds=3, steps=30)
    here = replace(learned.chosen, seeds={n: nn.to_numpy(v) for n, v in learned.chosen.seeds.items()})
    here = replace(here, params={n: nn.to_numpy(v) for n, v in here.params.items()})
    drawn, again = (figure(each, "t", "") for each in (learned, replace(learned, chosen=here)))
    for name in ("seeds-0", "chosen-0"):
        np.testing.assert_allclose(points(drawn.axes[1], name), points(again.axes[1], name), rtol=1e-6)


def test_many_points_are_smaller_and_one_image_in_a_picture_of_lines(tmp_path):
    sizes = []
    for rows in (20, 100, 1000, 3000):
        left, _ = figure(fitted(rows=rows), "t", "").axes
        (line,) = (line for line in left.lines if line.get_gid() == "network-inside")
        sizes.append(line.get_markersize())
        assert bool(line.get_rasterized()) == (rows == 3000)
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]
    draw_fit(fitted(rows=3000), "t", "", str(tmp_path / "many.svg"))
    assert (tmp_path / "many.svg").stat().st_size < 500_000
    _, right = figure(fitted(seeds=1100), "t", "").axes
    (dots,) = (line for line in right.lines if line.get_gid() == "seeds-0")
    assert dots.get_rasterized()


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_a_picture_is_what_its_name_says_and_the_same_bytes_again(suffix, tmp_path):
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    paths = [tmp_path / f"{name}{suffix}" for name in ("first", "second")]
    draw_fit(CHAIN, "t", "u", str(paths[0]))
    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "text.usetex": True, "savefig.dpi": 20}):
        draw_fit(CHAIN, "t", "u", str(paths[1]))  # whatever a user has set
        assert mpl.rcParams["font.size"] == 30
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(starts[suffix.lower()])
    assert first == second
    assert b"Date" not in first.replace(b"rdf:Date", b"")
    if suffix == ".png":
        assert np.frombuffer(first[16:24], ">u4").tolist() == [1500, 675]


def test_another_process_draws_the_same_bytes_without_pyplot(tmp_path):
    draw_fit(PRODUCT, "t", "u", str(tmp_path / "here.svg"))
    code = f"""if True:
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from nalu_np import plots, store
        assert "matplotlib" not in sys.modules
        from test_plots import fitted
        plots.draw_fit(fitted(), "t", "u", {str(tmp_path / "there.svg")!r})
        print("matplotlib.pyplot" in sys.modules)
    """
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert shown.stdout == "False\n"
    assert (tmp_path / "here.svg").read_bytes() == (tmp_path / "there.svg").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("names", [HOSTILE[:5], HOSTILE[5:10], HOSTILE[-5:]], ids=["first", "middle", "last"])
def test_hostile_names_reach_the_file(suffix, names, tmp_path):
    learned = replace(ALL["five columns"], features=tuple(names), target=names[0])
    draw_fit(learned, names[1], names[2], str(tmp_path / f"p{suffix}"))
    assert (tmp_path / f"p{suffix}").stat().st_size > 5000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_new_file_in_a_folder_is_drawable_and_nothing_is_left_behind(suffix, tmp_path):
    check_drawable(str(tmp_path / f"fit{suffix.upper()}"))
    assert not list(tmp_path.iterdir())


def there(tmp_path, name):
    (tmp_path / "there.png").write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    return str(tmp_path / name)


SUFFIX = "a picture's name must end in .png, .svg or .pdf; choose another name"
THERE = "it is there already; remove it or choose another name"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("fit.jpg", SUFFIX),
        ("fit", SUFFIX),
        ("png", SUFFIX),
        (".png", SUFFIX),
        ("fit.png.gz", SUFFIX),
        ("", SUFFIX),
        ("there.png", THERE),
        ("folder.png", THERE),
        ("link.png", THERE),
        ("missing/fit.png", "cannot be written: No such file or directory"),
        ("there.png/fit.png", "cannot be written: Not a directory"),
        ("n" * 300 + ".png", "cannot be written: File name too long"),
        ("nul\0.png", "cannot be written: embedded null byte"),
    ],
)
@pytest.mark.parametrize(
    "draw", [check_drawable, lambda path: draw_fit(PRODUCT, "t", "", path)], ids=["check", "draw"]
)
def test_what_cannot_be_drawn_is_one_line(draw, name, problem, tmp_path):
    path = there(tmp_path, name)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileError) as caught:
        draw(path)
    assert str(caught.value) == f"{path}: {problem}".replace("\0", r"\x00")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(store, "open", refuse, raising=False)
    with pytest.raises(FileError, match=r"\x1b|\\x1b\.png: cannot be written: Permission denied$") as caught:
        check_drawable(str(tmp_path / "\x1b.png"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "draw", [check_drawable, lambda path: draw_fit(PRODUCT, "t", "", path)], ids=["check", "draw"]
)
def test_without_matplotlib_the_message_says_how_to_install_it(draw, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FileError) as caught:
        draw(str(tmp_path / "fit.png"))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/fit.png: matplotlib is needed to draw")
    assert text.endswith("; python -m pip install '.[plot]' in the project's folder")
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_a_disk_without_space_leaves_no_half_file(error, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[:100])
            raise error

    monkeypatch.setattr(store, "open", Full, raising=False)
    path = str(tmp_path / "fit.svg")
    with pytest.raises(FileError if isinstance(error, OSError) else type(error)) as caught:
        draw_fit(PRODUCT, "t", "", path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
        assert isinstance(caught.value, NaluError)
    assert not list(tmp_path.iterdir())
