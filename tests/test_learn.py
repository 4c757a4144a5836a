"""Learning from a table: what decides, what is called exact, and what comes with a warning."""

import json
import re
from dataclasses import replace
from importlib import resources

import bar
import numpy as np
import pytest

import nalu_np as nn
from nalu_np.cli import DEMOS
from nalu_np.doctor import relations
from nalu_np.errors import OptionError, TableError
from nalu_np.learn import Plan, _grows, _untold, _warnings, gates, learn, off_branch, predict
from nalu_np.readout import Formula
from nalu_np.summary import as_json, as_text
from nalu_np.tasks.tables import Table, read_table

QUICK = Plan(seeds=6)
SLOW = Plan(unit="nalu", seeds=6, steps=3000)


def table(x, y, path="made.csv"):
    values = np.column_stack([x, y])
    names = (*"abcdefgh"[: values.shape[1] - 1], "y")
    lines = tuple(range(2, len(values) + 2))
    return Table(path, names, values, (), lines, tuple(f"line {n}" for n in lines))


def made(law, rows=200, low=1.0, high=2.0, columns=2, seed=0):
    x = np.random.default_rng(seed).uniform(low, high, (rows, columns))
    return table(x, law(*x.T))


def test_the_seed_with_the_lowest_loss_on_held_out_rows_is_chosen_and_a_fifth_is_held_out():
    learned = learn(made(lambda a, b: a - b), "y", plan=QUICK)
    assert str(learned.formula) == "a - b"
    assert learned.exact
    assert not learned.left_one_out
    assert (len(learned.trained.y), len(learned.held_out.y)) == (160, 40)
    known = {row.tobytes() for row in learned.trained.x}
    assert not any(row.tobytes() in known for row in learned.held_out.x)


def test_held_out_rows_do_not_train():
    """With one seed there is nothing to choose: other targets in held-out rows must not change the network."""
    plan = replace(SLOW, seeds=1, steps=500)
    first = made(lambda a, b: a * b)
    learned = learn(first, "y", plan=plan)
    held = {row.tobytes() for row in learned.held_out.x}
    y = [
        100.0 * v if row.tobytes() in held else v
        for row, v in zip(first.values[:, :2], first.values[:, 2], strict=True)
    ]
    again = learn(table(first.values[:, :2], y), "y", plan=plan)
    for name, value in learned.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    assert not again.exact


def test_a_row_left_out_is_predicted_without_it():
    """The prediction of a row does not depend on the row's own target, to the bit; those of the others do."""
    plan = replace(SLOW, seeds=1, steps=300)
    x = np.random.default_rng(1).uniform(1, 2, (6, 2))
    y = x[:, 0] * x[:, 1]
    before = learn(table(x, y), "y", plan=plan)
    changed = y.copy()
    changed[2] = 7.0
    after = learn(table(x, changed), "y", plan=plan)
    assert before.left_one_out
    assert after.held_out.network[2] == before.held_out.network[2]
    assert after.held_out.formula[2] == before.held_out.formula[2]
    assert not np.isin(after.held_out.network[[0, 1, 3, 4, 5]], before.held_out.network).any()


@pytest.mark.parametrize("unit", ["auto", "nalu"])
@pytest.mark.parametrize("rows", [2, 6, 19])
def test_few_rows_of_an_exact_law(rows, unit):
    learned = learn(
        made(lambda a, b: a * b, rows=rows, low=0.5, high=3.0), "y", plan=Plan(unit=unit, seeds=16, steps=4000)
    )
    assert learned.left_one_out
    assert len(learned.held_out.y) == len(learned.trained.y) == rows
    assert "each was left out once" in as_text(learned, "made.csv", (), None)
    if rows == 19:
        assert str(learned.formula) == "a * b"
        assert learned.exact
    if rows == 2:
        assert not learned.exact  # one row fits many formulas, and they disagree about the other


def test_the_shipped_table():
    folder = resources.files("nalu_np") / "data"
    small, giants = (read_table(str(folder / name)) for name in ("small_bodies.csv", "giants.csv"))
    learned = learn(small, "escape_velocity", test=giants)
    assert str(learned.formula) == "mass^0.5 * radius^-0.5"
    assert not learned.exact
    assert learned.chosen.agree > 0.5
    np.testing.assert_allclose(learned.test.formula, giants.columns(["escape_velocity"])[:, 0], rtol=0.005)
    assert learned.outside(learned.test).all()
    assert learned.test.labels == ("Jupiter", "Saturn", "Uranus", "Neptune")


def test_every_figure_of_the_shipped_tables_names_its_source_and_obeys_the_law_within_half_a_percent():
    folder = resources.files("nalu_np") / "data"
    for name, rows in (("small_bodies.csv", 6), ("giants.csv", 4)):
        shipped = read_table(str(folder / name))
        assert shipped.left_out == ("name", "source")
        mass, radius, velocity = shipped.values.T
        assert len(mass) == rows
        np.testing.assert_allclose(np.sqrt(mass / radius), velocity, rtol=0.005)


@pytest.mark.parametrize("noise", [1e-4, 0.01])
def test_a_law_with_noise_is_found_and_never_exact(noise):
    rng = np.random.default_rng(3)
    learned = learn(made(lambda a, b: a * b * (1 + noise * rng.normal(size=a.shape)), rows=400), "y", plan=QUICK)
    assert str(learned.formula) == "a * b"
    assert not learned.exact
    assert any("looks like noise" in warning for warning in learned.warnings)
    assert "about" in as_text(learned, "made.csv", (), None)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("sine", lambda a, b: np.sin(3 * a) + b),
        ("constant", lambda a, b: 3.7 * a * b),
        ("offset", lambda a, b: a + b + 1),
        ("almost", lambda a, b: a + b + 1e-3 * a * b),
        ("two steps", lambda a, b: a * b + a),
    ],
)
def test_a_law_beyond_the_unit_is_never_exact_and_warns(name, law):
    learned = learn(made(law), "y", plan=QUICK)
    assert not learned.exact
    assert learned.warnings or name == "almost"
    if learned.formula is not None:
        spread = learned.spread
        error = np.sqrt(np.mean((learned.held_out.formula - learned.held_out.y) ** 2)) / spread
        network = np.sqrt(np.mean((learned.held_out.network - learned.held_out.y) ** 2)) / spread
        assert error <= 0.01 or error <= 1.1 * network


def test_a_formula_that_fails_on_the_test_rows_is_not_exact():
    """The law changes beyond the training range: rows not used for training are there too, and they count."""
    train = made(lambda a, b: a + b)
    learned = learn(train, "y", test=made(lambda a, b: np.minimum(a + b, 5.0), low=2, high=6), plan=QUICK)
    assert learned.snapped == "a + b"
    assert not learned.exact
    assert any("the test rows" in warning for warning in learned.warnings)


def test_what_a_wide_test_would_hide_is_said():
    test = table([[1e12, 1e12], [1.0, 2.0]], [2e12, 3.3])
    learned = learn(made(lambda a, b: a + b), "y", test=test, plan=QUICK)
    assert max(learned.errors) < 1e-6
    assert not learned.exact
    assert any("in 1 of 2 rows of the test rows" in warning for warning in learned.warnings)


def test_no_formula_where_the_network_is_better_than_what_it_is_snapped_to():
    """0.25 lies between two stable constants: the network learns it, the formula cannot say it."""
    learned = learn(made(lambda a, b: 0.75 * a + b), "y", plan=QUICK)
    assert learned.formula is None
    assert not learned.exact
    report = as_json(learned, None)
    assert report["formula"] is None
    assert report["formula_test_mse"] is None
    assert report["formula_valid_mse"] is None
    assert "no formula" in as_text(learned, "made.csv", (), None)


def test_test_rows_inside_and_outside_the_range_are_told_apart():
    test = table([[1.5, 1.5], [1.5, 3.0], [0.5, 1.5]], [3.0, 4.5, 2.0])
    learned = learn(made(lambda a, b: a + b), "y", test=test, plan=QUICK)
    assert learned.outside(learned.test).tolist() == [False, True, True]
    report = as_text(learned, "made.csv", (), "test.csv")
    assert "test, inside the range" in report
    assert "test, outside the range" in report


def test_an_undefined_formula_says_so():
    train = made(lambda a, b: np.sqrt(a))
    learned = learn(train, "y", test=table([[-4.0, 1.0], [4.0, 1.0]], [2.0, 2.0]), plan=QUICK)
    assert learned.snapped == "a^0.5"
    assert any("has no finite value for 1 of the test rows" in warning for warning in learned.warnings)
    report = as_json(learned, None)
    assert report["formula_test_mse"] is None
    assert "undefined" in as_text(
        replace(learned, formula=nn.formula(learned.layer, learned.params, train.columns("ab"))),
        "made.csv",
        (),
        "t.csv",
    )


def test_a_gate_that_drifts_beyond_the_training_range_is_reported():
    learned = learn(made(lambda a, b: a * b), "y", test=table([[1.0, 2.0], [90.0, 2.0]], [2.0, 180.0]), plan=SLOW)
    # z = 0.5 a - 20: the product path up to a = 40, the sum beyond.
    params = {**learned.params, "G": np.array([[0.5], [-20.0]], "float32")}
    branch = gates(learned.layer, params, learned.trained.x).mean(axis=0).round()
    assert branch.tolist() == [0.0]

    def other(**changes):
        return replace(learned, chosen=replace(learned.chosen, odd=None, **changes))

    def warnings_of(learned):
        return list(_warnings(learned, None, [], [], learned.trained))

    drifting = replace(other(params=params), branch=branch)

    warnings = warnings_of(drifting)
    assert any("drifts" in warning and "1 of the test rows (line 3)" in warning for warning in warnings)
    assert not any("drifts" in warning for warning in warnings_of(other()))
    hanging = other(params={**params, "G": np.array([[-0.5], [-0.5]], "float32")})
    assert any("has not settled" in warning for warning in warnings_of(hanging))
    undecided = other(formula=replace(learned.formula, resolved=False))
    assert any("undecided" in warning for warning in warnings_of(undecided))
    loose = other(params={**learned.params, "W_hat": np.array([[0.9], [9.0]]), "M_hat": np.full((2, 1), 30.0)})
    assert any("weights far from what they are rounded to, by more than 0.1: a" in w for w in warnings_of(loose))


def test_gates_of_a_chain_and_of_a_unit_without_one():
    chained = nn.chain(nn.NALU(2, 2), nn.NALU(2, 1, gate="scalar"))
    x = np.ones((5, 2))
    assert gates(chained, chained.init(), x).shape == (5, 3)
    none = gates(nn.NAC(2, 1), nn.NAC(2, 1).init(), x)
    assert none.shape == (5, 0)
    assert not off_branch(none, none.mean(axis=0)).any()


def test_diverged_seeds_count_against_agreement():
    """Seven inputs near 0: a seed that begins with negative exponents overflows, another does not."""
    learned = learn(
        made(lambda *x: x[0], columns=7, low=0, high=1e-9), "y", plan=Plan(unit="nalu", seeds=16, steps=100)
    )
    assert 0 < learned.chosen.diverged < 16
    assert learned.chosen.agree <= 1 - learned.chosen.diverged / 16
    assert f"{learned.chosen.diverged} of 16 seeds diverged" in learned.warnings


@pytest.mark.parametrize("rows", [10, 200])
def test_when_every_seed_diverges_at_once_nothing_was_learned(rows):
    learned = learn(made(lambda a, b: a * b, rows=rows), "y", plan=Plan(unit="nalu", seeds=3, steps=50, lr=1e38))
    assert len(learned.warnings) == 1
    assert "every seed diverged at once" in learned.warnings[0]
    assert not learned.chosen.usable
    assert learned.formula is None
    assert learned.chosen.diverged == 3
    assert learned.chosen.agree == 0


def test_units_and_layers():
    x = made(lambda a, b: a - b)
    assert str(learn(x, "y", plan=replace(SLOW, unit="nac")).formula) == "a - b"
    product = made(lambda a, b: a / b)
    assert str(learn(product, "y", plan=replace(SLOW, unit="lognac")).formula) == "a / b"
    assert repr(Plan(layers=3, unit="nac").model("nac", 4)) == "chain(NAC(4, 2), NAC(2, 2), NAC(2, 1))"


def test_features_are_chosen_in_order_and_predictions_are_in_float64():
    learned = learn(made(lambda a, b, c: a + b, columns=3), "y", ["b", "a"], plan=QUICK)
    assert learned.features == ("b", "a")
    assert str(learned.formula) == "b + a"
    x = np.array([[1.5, 1.25]])
    assert predict(learned.layer, learned.params, x).dtype == np.float64


def test_a_run_is_reproducible_and_its_seed_matters():
    data = made(lambda a, b: a * b)
    one, two, other = (learn(data, "y", plan=replace(SLOW, steps=200, seed=s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.params["G"], two.params["G"])
    assert (one.params["G"] != other.params["G"]).any()


def test_progress_is_reported_by_segment():
    seen = []
    learn(made(lambda a, b: a + b), "y", plan=replace(SLOW, steps=2500), progress=lambda s: seen.append(s.step))
    assert seen == [1000, 2000, 2500]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: learn(made(lambda a, b: a, rows=1), "y"), "one row teaches nothing"),
        (lambda: learn(made(lambda a, b: a), "z"), "there is no column 'z'"),
        (lambda: learn(made(lambda a, b: a), "y", ["a", "q"]), "there is no column 'q'"),
        (lambda: learn(made(lambda a, b: a), "y", ["a", "y"]), "differ from each other and from the target"),
        (lambda: learn(made(lambda a, b: a), "y", ["a", "a"]), "differ from each other"),
        (lambda: learn(table(np.zeros((5, 0)), np.ones(5)), "y"), "no column of numbers besides 'y'"),
        (
            lambda: learn(made(lambda a, b: 1e300 * a), "y", plan=Plan(dtype="float64")),
            "too large to train in float64",
        ),
        (
            lambda: learn(table([[1.0], [2.0], [3.0]], [1.0, -9e9, 3.0]), "y", plan=SLOW),
            "line 3, column 'y': 9e+09 is too large",
        ),
        (lambda: learn(made(lambda a, b: 1e-80 * a), "y"), "column 'y': 2e-80, its largest number, is too small"),
        (lambda: learn(made(lambda a, b: 1e10 * a), "y", plan=SLOW), "or choose --dtype float64"),
    ],
)
def test_errors(call, words):
    with pytest.raises(TableError) as caught:
        call()
    assert words in str(caught.value)
    assert str(caught.value).startswith("made.csv: ")


def test_what_no_rows_can_tell_is_a_warning():
    x = np.random.default_rng(0).uniform(1, 2, (100, 1))
    constant = learn(table(np.ones((100, 1)) * 2, np.full(100, 2.0)), "y", plan=QUICK)
    assert not constant.exact
    assert any("the target is constant" in warning for warning in constant.warnings)
    twins = learn(table(np.hstack([x, x, np.ones_like(x)]), x[:, 0]), "y", plan=QUICK)
    assert any("these rows cannot tell" in warning for warning in twins.warnings)
    assert not twins.exact
    assert "but not to be called exact, see the warnings" in as_text(twins, "made.csv", (), None)
    plain = learn(made(lambda a, b: a + b), "y", plan=QUICK)
    assert plain.warnings == ()


# --- the race ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", bar.LINES, ids=lambda line: f"{line.kind} {line.train}")
def test_the_bar(line):
    """Every law that the README promises, on five tables each."""
    found = {(law, seed): bar.run(line, law, seed) for law in line.laws for seed in range(bar.SEEDS)}
    assert {key: one for key, one in found.items() if not one.fulfilled} == {}


def test_the_bar_can_be_missed():
    line = replace(bar.LINES[0], laws={"a * b": "a + b"})
    assert not bar.run(line, "a * b", 0).fulfilled
    honest = next(line for line in bar.LINES if line.asked == "honest")
    silent = replace(learn(made(lambda a, b: np.sin(3 * a) + b), "y"), warnings=())
    assert not bar.judged(honest, "sin(3 * a) + b", silent)


def test_the_page_shows_the_bar_that_was_measured():
    for name, lines in (("bar", bar.LINES), ("bar-nalu", bar.LINES[: bar.BASIC])):
        cells = json.loads((bar.DOCS / f"{name}.json").read_text(encoding="utf-8"))["lines"]
        assert [cell["laws"] for cell in cells] == [list(line.laws) for line in lines]
        assert bar.markdown(cells) in (bar.DOCS / "fit.md").read_text(encoding="utf-8")


def test_the_page_shows_the_reports_as_they_are_printed():
    """But for the seconds, and for digits that are but rounding."""

    def stable(text):
        return [re.sub(r"\S*\d\S*", "#", line).strip() for line in text.splitlines() if line.strip()]

    page = stable((bar.DOCS / "fit.md").read_text(encoding="utf-8"))
    for report in bar.reports().values():
        lines = stable(report)
        start = page.index(lines[0])
        assert page[start : start + len(lines)] == lines


def test_the_bar_prints_what_it_measures_and_writes_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bar, "LINES", [replace(bar.LINES[0], laws={"a + b": "a + b", "a * b": "wrong"})])
    monkeypatch.setattr(bar, "DOCS", tmp_path)
    parts = "".join(f"<!-- {name} -->\nold\n<!-- end -->\nafter\n" for name in ("bar", "good", "hopeless"))
    (tmp_path / "fit.md").write_text(f"before\n{parts}", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["bar.py", "--write", "--tables", "5"])
    bar.main()
    out = capsys.readouterr().out
    assert out.count("missed: ") == 5
    assert "| exact | 5 of 10 |" in out
    page = (tmp_path / "fit.md").read_text(encoding="utf-8")
    assert "| exact | 5 of 10 |" in page
    assert "\nold\n" not in page
    assert page.startswith("before\n")
    assert page.endswith("<!-- end -->\nafter\n")
    assert json.loads((tmp_path / "bar.json").read_text(encoding="utf-8"))["lines"][0]["fulfilled"] == 5


def test_the_choice_is_explained_and_units_of_the_paper_stand_beside():
    data = made(lambda a, b: a + b, low=0.1, high=0.2)
    learned = learn(data, "y", plan=Plan(seeds=8, steps=2000, compare=("nalu", "nac")))
    assert [candidate.unit for candidate in learned.candidates] == ["sum", "product", "nalu", "nac"]
    assert learned.chosen is learned.candidates[0]
    assert learned.why == "the sum path was taken: of the two paths, only its formula holds"
    report = as_text(learned, "made.csv", (), None)
    assert re.search(r"^\* sum path +\S+ +\S+ +100%  a \+ b$", report, re.MULTILINE)
    for name in ("  product path", "  nalu", "  nac"):
        assert re.search(rf"^{name} +\S+ +\S+ +\d+%  \S", report, re.MULTILINE)
    assert "of 8 seeds agree on a + b (sum path, each seed weighs the rows anew" in report
    described = as_json(learned, None)
    assert described["unit"] == "sum"
    assert [c["unit"] for c in described["candidates"]] == ["sum", "product", "nalu", "nac"]
    assert described["candidates"][0]["agree"] == 1
    alone = learn(data, "y", plan=Plan(unit="sum", seeds=2))
    assert alone.why == "it was asked for"
    assert "product" not in as_text(alone, "made.csv", (), None)


def test_what_is_compared_is_never_chosen_and_changes_nothing():
    data = made(lambda a, b: 0.3 * a + 0.7 * b)
    one, two = learn(data, "y"), learn(data, "y", plan=Plan(compare=("nac",), seeds=64, steps=3000))
    assert two.chosen.unit == one.chosen.unit == "sum"
    np.testing.assert_array_equal(one.params["W"], two.params["W"])


def test_of_two_as_good_the_simpler_is_taken():
    assert learn(made(lambda a, b: a), "y").chosen.unit == "sum"
    both = made(lambda a, b, c: a * b, columns=3)
    both.values[:, 2] = both.values[:, 0] * both.values[:, 1]
    learned = learn(both, "y")
    assert str(learned.formula) == "c"
    assert "of two as good the simpler" in learned.why
    assert not learned.exact
    assert any("these rows cannot tell c from a * b" in warning for warning in learned.warnings)


def test_without_a_formula_the_nearest_network_is_taken():
    learned = learn(made(lambda a, b: np.exp(a) * b), "y")
    assert learned.formula is None
    assert "no formula holds" in learned.why
    errors = [c.held_out.error(c.held_out.network, learned.spread) for c in learned.candidates]
    assert learned.chosen is learned.candidates[int(np.argmin(errors))]


@pytest.mark.parametrize(
    ("law", "formula"),
    [
        (lambda a, b: 3.7 * a * b, "3.7 * a * b"),
        (lambda a, b: -2.25 / a, "-2.25 / a"),
        (lambda a, b: 0.0625 * (a - 2 * b), "0.0625 * (a - 2 * b)"),
        (lambda a, b: a + b, "a + b"),
        (lambda a, b: -a * b, "-a * b"),
        (lambda a, b: 0.5 * a * b**2, "0.5 * a * b^2"),
    ],
)
def test_one_constant_besides(law, formula):
    learned = learn(made(law), "y", plan=Plan(scale=True))
    assert str(learned.formula) == formula
    assert learned.exact
    np.testing.assert_allclose(predict(learned.layer, learned.params, learned.trained.x), learned.trained.y)
    assert learned.unsnapped == formula


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (lambda a, b: 3.7 * a * b, "3.7 * a * b fits them; try --scale"),
        (lambda a, b: a + b + 1, "a + b + 1 fits them, but no unit adds a constant"),
        (lambda a, b: a - b - 2.5, "a - b - 2.5 fits them"),
        (
            lambda a, b: 0.75 * a + b,
            "these rows clearly prefer 0.75 * a + b: its constants are no multiples of 1/2",
        ),
        (lambda a, b: (a + b) * b, "no sum and no product of these columns says what these rows say"),
        (lambda a, b: a + b + 1e-3 * a * b, "what a + b leaves over is no noise"),
    ],
)
def test_what_the_unit_cannot_say_is_said(law, words):
    for low, high in ((1.0, 2.0), (-2.0, 2.0)):
        learned = learn(made(law, rows=2000, low=low, high=high), "y")
        if "leaves over" not in words or low < 0:
            assert any(words in warning for warning in learned.warnings), learned.warnings
        assert learned.formula is None or "leaves over" in words


def test_rows_that_the_product_path_cannot_learn_from():
    x = np.random.default_rng(0).integers(-3, 4, (200, 2)).astype(float)
    learned = learn(table(x, x[:, 0] * x[:, 1]), "y")
    assert str(learned.formula) == "a * b"
    assert learned.exact
    assert learned.chosen.left_out == int((learned.trained.x == 0).any(axis=1).sum())
    assert f"a * b ({learned.chosen.left_out} rows with a 0 left out)" in as_text(learned, "made.csv", (), None)
    zeros = table(np.zeros((30, 2)), np.arange(30.0))
    with pytest.raises(TableError, match="in every row the target or a factor is 0"):
        learn(zeros, "y", plan=Plan(unit="product"))
    assert learn(zeros, "y").chosen.unit == "sum"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unit": "gru"}, "unit must be one of auto, sum, product, nalu, nac, lognac"),
        ({"compare": ("sum",)}, "what it is compared with is one of nalu, nac, lognac, got 'sum'"),
        ({"unit": "nalu", "scale": True}, "nalu has no constant; choose auto, sum or product"),
        ({"layers": 2}, "auto has one layer; choose nalu, nac or lognac for more"),
    ],
)
def test_plans_that_make_no_sense(options, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        Plan(**options)


@pytest.mark.parametrize(
    ("name", "scale", "formula"),
    [
        ("planets", False, "distance^1.5"),
        ("boyle", True, "1409.48 / volume"),
        ("moons", True, "0.00889562 * mass^-0.5 * distance^1.5"),
    ],
)
def test_shipped_tables_of_measured_figures(name, scale, formula):
    folder = resources.files("nalu_np") / "data"
    train_file, test_file, target, *_ = DEMOS[name]
    train, test = (read_table(str(folder / f"{file}.csv")) for file in (train_file, test_file))
    learned = learn(train, target, test=test, plan=Plan(scale=scale))
    assert str(learned.formula) == formula
    assert not learned.exact
    assert learned.outside(learned.test).all()
    np.testing.assert_allclose(learned.test.formula, learned.test.y, rtol=0.01)
    if scale:
        plain = learn(train, target, test=test)
        assert plain.formula is None
        assert any(f"{formula} fits them; try --scale" in warning for warning in plain.warnings)


@pytest.mark.parametrize("unit", ["auto", "nalu"])
def test_on_a_device(unit, fake_cupy, tmp_path):
    """The race computes on the host; what it leaves behind is a model like any other."""
    learned = learn(made(lambda a, b: a * b, rows=60), "y", plan=Plan(unit, seeds=2, steps=20))
    assert np.isfinite(learned.held_out.network).all()
    nn.save(tmp_path / "model.npz", learned.layer, learned.params)
    layer, params, _ = nn.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(predict(layer, params, learned.held_out.x), learned.held_out.network)


def test_what_a_formula_of_magnitudes_says_about_twins_is_a_guess():
    x = np.random.default_rng(0).uniform(-2, 2, (100, 1))
    data = table(np.hstack([x, x]), np.abs(x[:, 0]))
    learned = learn(data, "y", plan=Plan(unit="lognac", seeds=4, steps=2000))
    assert not learned.exact
    related = relations(data.columns("ab"), "ab")
    found = Formula((("abs", "a"),), ("a", "b"), True, 0.0, True)
    assert _untold(found, related) == ["a"]
    assert _untold(replace(found, terms=("a",)), related) == ["a"]
    nested = ("sum", ((1.0, ("product", ((2.0, "a"),))), (1.0, "b")))
    assert _untold(replace(found, terms=(nested,)), related) == ["a", "b"]


def test_a_row_left_out_may_be_the_only_one_that_teaches_the_product_path():
    x = np.array([[1.5, 2.5], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    learned = learn(table(x, x.prod(axis=1)), "y", plan=Plan(unit="product"))
    assert np.isnan(learned.held_out.network[0])
    assert not learned.exact


def test_advice_that_is_wrong_itself_is_not_given():
    """2.02 sqrt(a b) c is within 1% of (a + b) c here, but what it leaves over is no noise."""
    data = made(lambda a, b, c: (a + b) * c, rows=2000, columns=3)
    learned = learn(data, "y")
    assert not any("--scale" in warning for warning in learned.warnings)
    scaled = learn(data, "y", plan=Plan(scale=True))
    assert any("no noise" in w or "no sum and no product" in w for w in scaled.warnings)


def test_rows_that_are_not_like_the_others_are_named_and_do_not_decide():
    data = made(lambda a, b: a + b)
    data.values[7, 2] = 1000.0
    learned = learn(data, "y")
    assert str(learned.formula) == "a + b"
    assert not learned.exact
    [warning] = learned.warnings
    assert warning.startswith("line 9 is not like the others: y is 1000, and a + b is ")
    data.values[20:25, 2] = -5.0
    many = learn(data, "y").warnings
    assert len(many) == 4
    assert many[-1] == "and 3 more of 200 rows are not like the others"


def test_a_single_row_left_over_has_no_trend():
    assert _grows(np.ones(1), np.ones(1)) == 0
    assert _grows(np.array([1.0, -2, 3]), np.array([2.0, 4, -6])) == pytest.approx(1)


def test_signs_that_no_product_has_are_said():
    data = made(lambda a, b: a * np.abs(b), low=-2, rows=1000)
    learned = learn(data, "y", plan=Plan(unit="product"))
    assert learned.formula is None
    assert any("has the magnitude of these rows and not their signs" in w for w in learned.warnings)
