"""The documentation's figures: each is drawn, its claims are in its data, pages and figures know each other."""

import functools
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import nalu_np as nn

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
}

#: The folders whose pages show all figures between them.
FOLDERS = ("tutorials", "how-to", "explanation", "derivations")


@pytest.fixture(scope="module")
def figures():
    """The package in docs/, which is not installed."""
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("figures")
    finally:
        sys.path.remove(str(DOCS))
        for name in [name for name in sys.modules if name.split(".")[0] == "figures"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def drawn(figures):
    """Each figure is made once, when a test asks for it."""

    @functools.cache
    def make(name):
        with figures.style(dark=False):
            return figures.functions()[name]()

    return make


def names():
    """By a process of its own, since tests are collected before there is a fixture."""
    found = []
    for path in sorted((DOCS / "figures").glob("[!_]*.py")):
        found += re.findall(r"^def ([a-z]\w*)\(\) -> Figure:", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found


def line(figure, gid, axes=None):
    """Data of the line of that gid, x and y."""
    lines = [line for each in figure.axes for line in each.lines if line.get_gid() == gid]
    (found,) = lines if axes is None else [line for line in lines if line.axes is figure.axes[axes]]
    return found.get_xdata(), np.asarray(found.get_ydata(), dtype=float)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


# --- all of them ------------------------------------------------------------------------------------------------


def test_every_public_function_is_a_figure_and_is_found(figures):
    assert sorted(figures.functions()) == sorted(names())


@pytest.mark.parametrize("name", names())
def test_a_figure_has_content_and_says_what_its_axes_are(name, drawn, figures):
    figure = drawn(name)
    assert isinstance(figure, Figure)
    assert figures.functions()[name].__doc__
    assert figure.get_size_inches()[0] == pytest.approx(4.9)
    for axes in figure.axes:
        assert axes.lines or axes.patches or axes.collections or axes.texts
        if axes.axison and not name.startswith("unit_"):
            assert axes.get_ylabel() or axes.get_title(loc="left")
    if not name.startswith("unit_"):
        assert figure.axes[-1].get_xlabel()
        assert all(np.isfinite(x.get_ydata()).all() for axes in figure.axes for x in axes.lines if x.get_gid())


def test_two_figures_of_one_name_are_refused(figures, monkeypatch):
    module = importlib.import_module("figures.failures")

    def lost_sign():
        """The name of another."""

    lost_sign.__module__ = module.__name__
    monkeypatch.setattr(module, "lost_sign", lost_sign, raising=False)
    with pytest.raises(ValueError, match="lost_sign"):
        figures.functions()


def test_drawing_is_repeatable_transparent_and_leaves_the_settings_alone(figures, tmp_path, monkeypatch):
    import matplotlib as mpl

    every = figures.functions()
    monkeypatch.setattr(
        figures, "functions", lambda: {name: every[name] for name in ("weight_gradient", "unit_nac")}
    )
    with mpl.rc_context({"font.size": 3, "axes.facecolor": "red"}):
        figures.draw(tmp_path / "one")
        assert (mpl.rcParams["font.size"], mpl.rcParams["axes.facecolor"]) == (3, "red")
    figures.draw(tmp_path / "two")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert sorted(contents) == [
        "unit_nac-dark.svg",
        "unit_nac.svg",
        "weight_gradient-dark.svg",
        "weight_gradient.svg",
    ]
    for name, content in contents.items():
        assert content == (tmp_path / "two" / name).read_bytes()
        assert b"<dc:date>" not in content
        assert b"fill: #ffffff" not in content
    assert contents["unit_nac.svg"] != contents["unit_nac-dark.svg"]


@pytest.mark.slow
def test_the_command_draws_all_of_them_small_enough(tmp_path):
    subprocess.run([sys.executable, str(DOCS / "figures"), str(tmp_path)], check=True)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == sorted(f"{name}{ending}.svg" for name in names() for ending in ("", "-dark"))
    assert max(sizes.values()) < 150_000


def test_the_command_says_how_it_is_used():
    done = subprocess.run([sys.executable, str(DOCS / "figures")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "usage: python docs/figures FOLDER\n"


# --- pages and figures ------------------------------------------------------------------------------------------


def shown():
    """The figures that pages show: page, path and what the picture is said to show."""
    return [
        (page, path, said)
        for page, text in PAGES.items()
        for said, path in re.findall(r"!\[([^\]]*)\]\(([^)]*_figures/[^)]*)\)", text)
    ]


def test_what_pages_show_is_drawn():
    for page, path, said in shown():
        name = Path(path).stem
        assert (page.parent / path).resolve() == DOCS / "_figures" / f"{name}.svg"
        assert name in names(), f"{page.name} shows {name}, which no function in docs/figures draws"
        assert len(said) > 20, f"{page.name} does not say what {name} shows"


def test_every_figure_is_shown():
    pages = {page.parent.name for page in PAGES}
    assert pages >= set(FOLDERS)
    assert sorted(set(names()) - {Path(path).stem for _, path, _ in shown()}) == []


# --- what they claim --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "share"), [(1, 21.5), (5, 60.0), (20, 88.8)])
def test_the_share_of_weights_at_rest(std, share, drawn):
    (title,) = [title for title in titles(drawn("weight_histogram")) if f"deviation {std}:" in title]
    assert float(re.search(r": ([\d.]+) %", title)[1]) == pytest.approx(share, abs=0.05)
    axes = next(axes for axes in drawn("weight_histogram").axes if axes.get_gid() == f"std-{std}")
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100, abs=0.01)


def test_the_variance_of_weights_and_the_radii_that_follow(drawn):
    figure = drawn("glorot_variance")
    at, sample = line(figure, "sample")
    assert sample[list(at).index(2)] == pytest.approx(0.16037, abs=0.002)
    r, formula = line(figure, "formula")
    assert np.interp(2, r, formula) == pytest.approx(0.16037, abs=1e-4)
    assert np.interp(at, r, formula) == pytest.approx(sample, rel=0.03)
    for fans, radius in ((102, 0.504), (30, 1.025), (12, 2.07)):
        (x,), (y,) = line(figure, f"fans-{fans}")
        assert (x, y) == pytest.approx((radius, 2 / fans), abs=0.006)


def test_gradients_vanish_at_the_goal(drawn):
    figure = drawn("weight_gradient")
    (q, missing), (_, W_hat), (_, M_hat) = (line(figure, gid) for gid in ("missing", "W_hat", "M_hat"))
    far = q > 5
    assert missing[far] == pytest.approx(2 * np.exp(-2 * q[far]) + np.exp(-q[far]), rel=1e-2)
    assert M_hat[far] == pytest.approx(missing[far], rel=0.05)
    assert W_hat[far] == pytest.approx(4 * np.exp(-2 * q[far]), rel=0.05)


def test_the_gradient_of_m_hat_has_no_mean_and_a_spread(drawn):
    figure = drawn("zero_gradient")
    assert abs(line(figure, "mean-M")[0][0]) < 0.002
    assert line(figure, "mean-W")[0][0] > 0.2
    shares, edges, _ = figure.axes[1].patches[0].get_data()
    assert shares[edges[:-1] < -0.1].sum() > 20
    assert shares[edges[1:] > 0.1].sum() > 20


def test_products_are_singular_near_zero(drawn):
    figure = drawn("product_singularity")
    assert line(figure, "-1-1e-07", 0)[1][0] == pytest.approx(1e7, rel=0.01)
    assert line(figure, "-1-1e-07", 1)[1][0] == pytest.approx(1e14, rel=0.01)
    assert line(figure, "0.5-1e-07", 1)[1][0] == pytest.approx(0.5 * 10**3.5, rel=0.01)
    assert line(figure, "-1-0.01", 0)[1].max() < 101


def test_a_product_loses_its_sign(drawn):
    (x, truth), (_, product) = (line(drawn("lost_sign"), gid) for gid in ("truth", "product"))
    assert product == pytest.approx(np.abs(truth), abs=1e-6)
    assert truth[x < 0].max() < 0


def test_the_mean_of_a_product_is_that_of_the_formula(drawn):
    (z, sample), (x, formula) = (line(drawn("log_moments"), gid) for gid in ("sample", "formula"))
    assert np.interp(0.5, x, formula) == pytest.approx(1.60, abs=0.02)
    middle = (z > 0.3) & (z < 3)
    assert sample[middle] == pytest.approx(np.interp(z[middle], x, formula), rel=0.1)
    assert min(formula) >= 1


def test_a_gate_swaps(drawn):
    figure = drawn("gate_swap")
    (t, g), (_, mirrored) = (line(figure, gid) for gid in ("gate", "mirrored"))
    assert g + mirrored == pytest.approx(1, abs=1e-5)
    (_, truth), (_, output) = (line(figure, gid) for gid in ("truth", "output"))
    inside = (t >= 1) & (t <= 2)
    assert output[inside] == pytest.approx(truth[inside], rel=0.03)
    assert output[t < -2].min() > 2


def test_losses_near_the_optimum(drawn):
    size = {name: line(drawn("loss_gradients"), name)[1] for name in ("MSE", "MAE", "RMSE")}
    scale = line(drawn("loss_gradients"), "MSE")[0]
    assert size["MSE"] / scale == pytest.approx(size["MSE"][-1] / scale[-1])
    assert size["MAE"] == pytest.approx(1)
    assert size["RMSE"] == pytest.approx(np.sqrt(2 / np.pi), rel=0.1)


def test_the_length_of_steps(drawn):
    gradient, step = line(drawn("adam_steps"), "adam")
    assert step[gradient > 1e-6] == pytest.approx(1, abs=0.02)
    assert step[gradient < 1e-10] == pytest.approx(gradient[gradient < 1e-10] / 1e-8, rel=0.02)
    assert line(drawn("adam_steps"), "steady")[1] == pytest.approx(1, abs=1e-6)
    assert line(drawn("adam_steps"), "changing sign")[1][-1] < 0.1


@pytest.mark.parametrize("missing", [1e-3, 1e-4, 1e-5])
def test_what_a_recurrent_sum_loses(missing, drawn):
    (T, lost), (steps, formula) = (
        line(drawn("recurrent_loss"), f"{kind}-{missing:g}") for kind in ("sum", "formula")
    )
    short = T * missing < 0.1
    assert lost[short] == pytest.approx(np.interp(T[short], steps, formula), rel=0.05)
    ago, gradient = line(drawn("recurrent_gradient"), f"gradient-{missing:g}")
    assert gradient == pytest.approx((1 - missing) ** ago, rel=1e-6)


def test_one_percent_at_a_thousand_steps_takes_a_weight_within_two_hundred_thousandths(drawn):
    assert line(drawn("recurrent_loss"), "sum-1e-05")[1][-1] == pytest.approx(0.005, rel=0.01)
    assert line(drawn("recurrent_loss"), "sum-0.0001")[1][-1] > 0.04


def test_plains_hold_what_begins_there(drawn):
    learned = [int(re.search(r": (\d+) of 64", title)[1]) for title in titles(drawn("plains"))]
    assert learned[0] >= 62
    assert learned[0] >= learned[1] > learned[2]
    assert 10 <= learned[2] <= 35


def test_gates_hang(drawn):
    labels = [text.get_text() for text in drawn("gate_luck").axes[0].get_legend().get_texts()]
    counts = [int(label.rpartition(":")[2]) for label in labels]
    assert sum(counts) == 32
    assert 4 <= counts[0] <= 14


def test_tied_weights_are_pulled_both_ways_below_one(drawn):
    (x, through_sum), (_, product), (_, both) = (
        line(drawn("tied_weights"), gid) for gid in ("sum", "product", "together")
    )
    x = x.ravel()
    assert (through_sum > 0).all()
    assert (product[x < 1] < 0).all()
    assert (product[x > 1] > 0).all()
    assert x[np.abs(both[x > 0.3]).argmin() + (x <= 0.3).sum()] == pytest.approx(0.5, abs=0.03)


def test_a_square_takes_two_layers(drawn):
    (_, truth), (_, one), (_, two) = (
        line(drawn("bounded_weights"), gid) for gid in ("truth", "one layer", "two layers")
    )
    assert one[-1] < 4.5
    assert two[-1] > 13
    assert truth[-1] == pytest.approx(16)


def test_success_rates_are_those_of_the_experiments_in_picture_and_table(drawn):
    report = json.loads((DOCS / "experiments.json").read_text(encoding="utf-8"))
    rows = {row["row"]: 100 * row["ours"] for row in report["static"]["rows"]}
    ops = ("add", "sub", "mul", "div", "square", "root")
    page = PAGES[DOCS / "explanation" / "why-nalu-fails.md"]
    models = re.findall(r"^\| ((?:NALU|NAC)[\w-]*)((?: \| \d+)+) \|$", page, re.MULTILINE)
    assert len(models) == 5
    for model, cells in models:
        assert [float(cell) for cell in cells.split(" | ")[1:]] == [
            rows[f"static/{op}/{model}/success"] for op in ops
        ]
    for bars in drawn("success_rates").axes[0].containers:
        rates = list(bars.lines[0].get_xdata())
        assert rates == pytest.approx([rows[f"static/{op}/{bars.get_label()}/success"] for op in ops])


def test_speeds_are_quoted_as_they_were_measured():
    report = json.loads((DOCS / "speed-1.json").read_text(encoding="utf-8"))
    value = {(row["case"], row["contender"]): row["value"] for row in report["rows"]}
    quoted = [
        ("C-1024", name) for name in ("planes", "readable", "jax", "jax by hand", "torch", "NumPy's loops alone")
    ]
    quoted += [("C-10", "planes"), ("C-1024-fresh", "planes"), ("flat", "planes, 512 seeds")]
    quoted += [("flat", "planes, 100,000 seeds")]
    page = PAGES[DOCS / "explanation" / "cpu-and-gpu.md"]
    assert [pair for pair in quoted if not re.search(rf"\b{value[pair]:,.0f}\b", page)] == []
    shares = {"0.39": ("C-10", "jax"), "0.68": ("C-1024", "jax by hand")}
    for share, (case, contender) in shares.items():
        assert f"{value[case, contender] / value[case, 'planes']:.2f}" == share
        assert share in page


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_error_of_a_product_grows_with_its_logarithm(dtype, drawn):
    p, logs = line(drawn("long_products"), f"exp of logs-{dtype}")
    _, running = line(drawn("long_products"), f"running-{dtype}")
    large = p > 20
    assert (logs[large] > 0.05 * p[large]).all()
    assert (logs[large] < p[large]).all()
    assert running.max() < 1.5


def test_eps_is_a_bias_of_small_inputs(drawn):
    for dtype, floor in (("float32", 1e-5), ("float64", 1e-14)):
        x, error = line(drawn("eps_bias"), dtype)
        small = x < 0.1
        assert error[small] == pytest.approx(1e-7 / x[small], rel=0.1)
        assert error[x > 1e9].max() < floor


def test_sums_of_a_thousand_steps(drawn):
    (_, single), (_, double), (_, trained) = (
        line(drawn("long_sums"), gid) for gid in ("float32", "float64", "trained")
    )
    assert single[-1] < 3e-6
    assert double[-1] < 1e-14
    assert trained == pytest.approx(4.54e-5, rel=0.01)


def test_the_gates_are_those_of_the_unit(drawn):
    """The cells of the matrix's gate are what a NALU computes for these rows."""
    x = np.array([[1.0, 2.0], [-1.0, -2.0], [2.0, -1.0], [-2.0, 1.0]])
    zero = np.zeros((2, 2))
    params = {"W_hat": zero, "M_hat": zero, "G": np.array([[0.9, -0.6], [0.5, 0.7]])}
    for kind, axes in zip(("matrix", "abs"), (0, 2), strict=True):
        g = nn.NALU(2, 2, gate=kind).values(params, x)["g"]
        texts = [text.get_text() for text in drawn("unit_gate").axes[axes].texts]
        assert texts == [f"{value:.2f}" for value in g.ravel()]
