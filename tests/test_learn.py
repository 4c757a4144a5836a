"""Learning from a table: what decides, what is called exact, and what comes with a warning."""

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

import nalu_np as nn
from nalu_np.errors import TableError
from nalu_np.learn import Plan, _warnings, gates, learn, off_branch, predict
from nalu_np.summary import as_json, as_text
from nalu_np.tasks.tables import Table, read_table

QUICK = Plan(seeds=6, steps=3000)


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
    plan = replace(QUICK, seeds=1, steps=500)
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
    plan = replace(QUICK, seeds=1, steps=300)
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


@pytest.mark.parametrize("rows", [2, 6, 19])
def test_few_rows_of_an_exact_law(rows):
    learned = learn(made(lambda a, b: a * b, rows=rows, low=0.5, high=3.0), "y", plan=Plan(seeds=16, steps=4000))
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
    assert learned.agree > 0.5
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
    assert bool(learned.warnings) == (noise == 0.01)
    assert "about" in as_text(learned, "made.csv", (), None)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("sine", lambda a, b: np.sin(3 * a) + b),
        ("constant", lambda a, b: 3.7 * a * b),
        ("offset", lambda a, b: a + b + 1),
        ("almost", lambda a, b: a + b + 1e-3 * a * b),
        ("square", lambda a, b: a * a),
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
    learned = learn(made(lambda a, b: a * b), "y", test=table([[1.0, 2.0], [90.0, 2.0]], [2.0, 180.0]), plan=QUICK)
    # z = 0.5 a - 20: the product path up to a = 40, the sum beyond.
    params = {**learned.params, "G": np.array([[0.5], [-20.0]], "float32")}
    branch = gates(learned.layer, params, learned.trained.x).mean(axis=0).round()
    drifting = replace(learned, params=params, branch=branch, warnings=())
    assert branch.tolist() == [0.0]

    def warnings_of(learned, found=learned.formula):
        return list(_warnings(learned, found, None, [], learned.trained))

    warnings = warnings_of(drifting)
    assert any("drifts" in warning and "1 of the test rows (line 3)" in warning for warning in warnings)
    assert not any("drifts" in warning for warning in warnings_of(learned))
    hanging = replace(learned, params={**params, "G": np.array([[-0.5], [-0.5]], "float32")})
    assert any("has not settled" in warning for warning in warnings_of(hanging))
    undecided = replace(learned.formula, resolved=False)
    assert any("undecided" in warning for warning in warnings_of(learned, undecided))


def test_gates_of_a_chain_and_of_a_unit_without_one():
    chained = nn.chain(nn.NALU(2, 2), nn.NALU(2, 1, gate="scalar"))
    x = np.ones((5, 2))
    assert gates(chained, chained.init(), x).shape == (5, 3)
    none = gates(nn.NAC(2, 1), nn.NAC(2, 1).init(), x)
    assert none.shape == (5, 0)
    assert not off_branch(none, none.mean(axis=0)).any()


def test_diverged_seeds_count_against_agreement():
    """Seven inputs near 0: a seed that begins with negative exponents overflows, another does not."""
    learned = learn(made(lambda *x: x[0], columns=7, low=0, high=1e-9), "y", plan=Plan(seeds=16, steps=100))
    assert 0 < learned.diverged < 16
    assert learned.agree <= 1 - learned.diverged / 16
    assert f"{learned.diverged} of 16 seeds diverged" in learned.warnings


@pytest.mark.parametrize("rows", [10, 200])
def test_when_every_seed_diverges_at_once_nothing_was_learned(rows):
    learned = learn(made(lambda a, b: a * b, rows=rows), "y", plan=Plan(seeds=3, steps=50, lr=1e38))
    assert len(learned.warnings) == 1
    assert "every seed diverged at once" in learned.warnings[0]
    assert not learned.usable
    assert learned.formula is None
    assert learned.diverged == 3
    assert learned.agree == 0


def test_units_and_layers():
    x = made(lambda a, b: a - b)
    assert str(learn(x, "y", plan=replace(QUICK, unit="nac")).formula) == "a - b"
    product = made(lambda a, b: a / b)
    assert str(learn(product, "y", plan=replace(QUICK, unit="lognac")).formula) == "a / b"
    assert repr(Plan(layers=3, unit="nac").model(4)) == "chain(NAC(4, 2), NAC(2, 2), NAC(2, 1))"


def test_features_are_chosen_in_order_and_predictions_are_in_float64():
    learned = learn(made(lambda a, b, c: a + b, columns=3), "y", ["b", "a"], plan=QUICK)
    assert learned.features == ("b", "a")
    assert str(learned.formula) == "b + a"
    x = np.array([[1.5, 1.25]])
    assert predict(learned.layer, learned.params, x).dtype == np.float64


def test_a_run_is_reproducible_and_its_seed_matters():
    data = made(lambda a, b: a * b)
    one, two, other = (learn(data, "y", plan=replace(QUICK, steps=200, seed=s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.params["G"], two.params["G"])
    assert (one.params["G"] != other.params["G"]).any()


def test_progress_is_reported_by_segment():
    seen = []
    learn(made(lambda a, b: a + b), "y", plan=replace(QUICK, steps=2500), progress=lambda s: seen.append(s.step))
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
            lambda: learn(table([[1.0], [2.0], [3.0]], [1.0, -9e9, 3.0]), "y"),
            "line 3, column 'y': 9e+09 is too large",
        ),
        (lambda: learn(made(lambda a, b: 1e10 * a), "y"), "or choose --dtype float64"),
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
