"""scikit-learn's face of `learn`: what comes in parts, several outputs, and scikit-learn's own contract."""

import pickle
import re
import subprocess
import sys
from unittest import SkipTest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import nalu_np as nn
from nalu_np import estimator as estimator_module
from nalu_np import lattice
from nalu_np.errors import OptionError, ShapeError, TableError
from nalu_np.estimator import NALURegressor, _in_python
from nalu_np.learn import Plan, learn
from nalu_np.tasks.tables import Table

BY_GRADIENTS = {"unit": "nalu", "seeds": 2, "steps": 50}


def rows(n=60, columns=2, low=1.0, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, (n, columns))


def product(X):
    return X[:, 0] * X[:, 1]


def same(a, b, X):
    """Two estimators that learned the same, to the bit."""
    np.testing.assert_array_equal(a.predict(X), b.predict(X))
    assert str(a.formula_) == str(b.formula_)
    assert a.exact_ == b.exact_
    assert a.warnings_ == b.warnings_


# --- properties -------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(2, 29), max_size=3, unique=True),
    state=st.integers(0, 2**32 - 1),
    outputs=st.sampled_from([None, 1, 2]),
    noise=st.booleans(),
)
def test_rows_in_parts_teach_what_they_teach_at_once(cuts, state, outputs, noise):
    X = rows(30, seed=state)
    y = product(X) if outputs is None else np.column_stack([product(X), X[:, 0] - X[:, 1]])[:, :outputs]
    y = y + noise * np.random.default_rng(state).normal(size=y.shape)
    whole = NALURegressor(seeds=3, random_state=state).fit(X, y)
    parts = NALURegressor(seeds=3, random_state=state)
    for some, targets in zip(np.split(X, sorted(cuts)), np.split(y, sorted(cuts)), strict=True):
        assert parts.partial_fit(some, targets) is parts
    same(whole, parts, rows(9, high=6.0))


def test_parts_continue_from_the_rows_of_fit_and_fit_begins_again():
    X, model = rows(), NALURegressor(seeds=3, random_state=5)
    model.fit(X[:25], X[:25, 0]).partial_fit(X[25:], X[25:, 0])
    same(model, clone(model).fit(X, X[:, 0]), X)
    same(model.fit(X, product(X)), clone(model).fit(X, product(X)), X)


def test_units_trained_by_gradients_learn_from_parts_too():
    X = rows(30)
    whole = NALURegressor(**BY_GRADIENTS, random_state=1).fit(X, product(X))
    parts = clone(whole).partial_fit(X[:7], product(X[:7])).partial_fit(X[7:], product(X[7:]))
    same(whole, parts, X)


def test_a_state_is_drawn_from_once_for_all_parts():
    X, y = rows(30), np.random.default_rng(2).normal(size=30)
    whole = NALURegressor(seeds=3, random_state=np.random.RandomState(4)).fit(X, y)
    parts = NALURegressor(seeds=3, random_state=np.random.RandomState(4))
    parts.partial_fit(X[:20], y[:20]).partial_fit(X[20:], y[20:])
    np.testing.assert_array_equal(whole.learned_.held_out.x, parts.learned_.held_out.x)


def test_an_int_is_the_seed_of_learn_and_a_new_one_counts_for_the_next_part():
    X, y = rows(30), np.random.default_rng(2).normal(size=30)
    table = Table("made", ("a", "b", "y"), np.column_stack([X, y]), (), tuple(range(30)), ("",) * 30)
    held = learn(table, "y", plan=Plan(seeds=3, seed=9)).held_out.x
    model = NALURegressor(seeds=3, random_state=8).fit(X[:20], y[:20])
    model.set_params(random_state=np.int64(9)).partial_fit(X[20:], y[20:])
    np.testing.assert_array_equal(model.learned_.held_out.x, held)


@pytest.mark.parametrize("make", [lambda: 3, lambda: np.random.RandomState(3)])
def test_the_same_random_state_gives_the_same_bits(make):
    X, y = rows(), np.random.default_rng(1).normal(size=60)
    first, second = (NALURegressor(seeds=4, random_state=make()).fit(X, y) for _ in range(2))
    same(first, second, X)
    np.testing.assert_array_equal(first.learned_.held_out.x, second.learned_.held_out.x)


def test_without_random_state_runs_differ_unless_numpy_is_seeded():
    X, y = rows(), np.random.default_rng(1).normal(size=60)

    def held(seed=None):
        if seed is not None:
            np.random.seed(seed)
        return NALURegressor(seeds=1).fit(X, y).learned_.held_out.x

    state = np.random.get_state()
    try:
        assert np.array_equal(held(0), held(0))
        assert not np.array_equal(held(), held())
    finally:
        np.random.set_state(state)


@pytest.mark.parametrize("options", [{}, {"scale": True}, BY_GRADIENTS])
def test_clones_and_pickles_are_equal_to_the_bit(options):
    X = rows(30)
    model = NALURegressor(random_state=0, **options).fit(X, 2.5 * product(X))
    copy = pickle.loads(pickle.dumps(model))
    same(model, copy, rows(9, high=6.0))
    same(model, clone(model).fit(X, 2.5 * product(X)), rows(9, high=6.0))
    more = rows(8, seed=3)
    same(model.partial_fit(more, more[:, 0]), copy.partial_fit(more, more[:, 0]), X)


def test_outputs_are_learned_as_if_each_were_alone():
    X = rows()
    Y = np.column_stack([product(X), X[:, 0] - X[:, 1], np.sin(9 * X[:, 0])])
    model = NALURegressor(seeds=4, random_state=2).fit(X, Y)
    beyond = rows(20, high=6.0)
    alone = [clone(model).fit(X, y) for y in Y.T]
    np.testing.assert_array_equal(model.predict(beyond), np.column_stack([one.predict(beyond) for one in alone]))
    assert list(map(str, model.formula_)) == ["x1 * x2", "x1 - x2", "None"]
    assert model.exact_ == [one.exact_ for one in alone] == [True, True, False]
    assert [one.target for one in model.learned_] == ["y1", "y2", "y3"]
    assert model.warnings_ == [f"y3: {text}" for text in alone[2].warnings_]
    assert alone[2].warnings_


def test_one_output_in_two_dimensions_stays_in_two():
    X = rows()
    model = NALURegressor(seeds=2).fit(X, product(X)[:, None])
    assert model.predict(X).shape == model.predict(X, formula=True).shape == (60, 1)
    assert [str(one) for one in model.formula_] == ["x1 * x2"]
    assert model.exact_ == [True]
    assert model.fit(X, np.sin(9 * X[:, :1])).warnings_
    assert not any(text.startswith("y") for text in model.warnings_)


def test_the_formula_predicts_by_itself():
    X, beyond = rows(), rows(20, high=6.0)
    y = X[:, 0] / X[:, 1] * (1 + 1e-3 * np.random.default_rng(0).normal(size=60))
    model = NALURegressor(random_state=0).fit(X, y)
    np.testing.assert_array_equal(model.predict(beyond, formula=True), model.formula_(beyond)[:, 0])
    np.testing.assert_allclose(model.predict(beyond, formula=True), beyond[:, 0] / beyond[:, 1], rtol=1e-14)
    assert (model.predict(beyond) != model.predict(beyond, formula=True)).all()
    Y = np.column_stack([y, product(X)])
    model.fit(X, Y)
    expected = np.column_stack([one(beyond) for one in model.formula_])
    np.testing.assert_array_equal(model.predict(beyond, formula=True), expected)


def test_rows_that_change_later_do_not_change_what_was_learned():
    X = rows()
    y = product(X)
    model = NALURegressor(seeds=2, random_state=0).fit(X, y)
    whole = clone(model).fit(np.vstack([X, X[:5]]), np.append(y, y[:5]))
    more = X[:5].copy(), y[:5].copy()
    X[:], y[:] = 7.0, 7.0
    same(model.partial_fit(*more), whole, rows())


# --- laws -------------------------------------------------------------------------------------------------------


def test_a_product_is_followed_beyond_the_range_it_was_learned_on():
    X, beyond = rows(200), rows(500, low=2.0, high=6.0, seed=1)
    model = NALURegressor(random_state=0).fit(X, product(X))
    assert (str(model.formula_), model.exact_, model.warnings_) == ("x1 * x2", True, [])
    for formula in (False, True):
        np.testing.assert_allclose(model.predict(beyond, formula=formula), product(beyond), rtol=1e-9)
    assert model.score(beyond, product(beyond)) > 1 - 1e-12
    assert (model.n_features_in_, hasattr(model, "feature_names_in_")) == (2, False)


def test_a_grid_search_finds_that_a_law_has_a_constant():
    X = rows(90)
    grid = {"scale": [False, True], "unit": ["auto", "sum"], "seeds": [1, 2]}
    search = GridSearchCV(NALURegressor(random_state=0), grid, cv=3, error_score="raise").fit(X, 3.7 * product(X))
    assert search.best_params_["scale"] is True
    assert search.best_params_["unit"] == "auto"
    assert str(search.best_estimator_.formula_) == "3.7 * x1 * x2"
    beyond = rows(20, low=2.0, high=6.0)
    np.testing.assert_allclose(search.predict(beyond), 3.7 * product(beyond), rtol=1e-9)


def test_a_pipeline_may_make_the_columns_that_a_law_needs():
    X = rows(low=-2.0, high=2.0)
    y = np.exp(X[:, 0]) / np.exp(X[:, 1])
    model = make_pipeline(FunctionTransformer(np.exp), NALURegressor(random_state=0)).fit(X, y)
    assert str(model[-1].formula_) == "x1 / x2"
    np.testing.assert_allclose(model.predict(X, formula=True), y)
    assert make_pipeline(StandardScaler(), NALURegressor(random_state=0)).fit(X, y)[-1].exact_ is False


def test_numbers_of_numpy_are_parameters_too():
    options = {"scale": np.False_, "seeds": np.int64(2), "steps": np.int32(20), "layers": np.int8(2)}
    model = NALURegressor("nalu", **options, lr=np.float32(0.01), batch=np.int64(8), dtype="float64")
    plan = model.fit(rows(), product(rows())).learned_.plan
    kinds = (plan.scale, plan.seeds, plan.steps, plan.layers, plan.lr, plan.batch)
    assert [type(value) for value in kinds] == [bool, int, int, int, float, int]
    assert (plan.dtype, model.learned_.params["0.W_hat"].dtype) == ("float64", "float64")


# --- names ------------------------------------------------------------------------------------------------------


def test_columns_of_a_frame_name_the_formula():
    pandas = pytest.importorskip("pandas")
    X = rows()
    frame = pandas.DataFrame(X, columns=["y", "time"])
    model = NALURegressor(random_state=0).fit(frame, pandas.Series(X[:, 0] / X[:, 1], name="speed"))
    assert str(model.formula_) == "y / time"
    assert model.learned_.target == "y_"
    assert list(model.feature_names_in_) == ["y", "time"]
    np.testing.assert_array_equal(
        model.predict(frame), NALURegressor(random_state=0).fit(X, X[:, 0] / X[:, 1]).predict(X)
    )
    with pytest.raises(ValueError, match="feature names"):
        model.partial_fit(frame[["time", "y"]], X[:, 0])
    both = NALURegressor(random_state=0).fit(frame, pandas.DataFrame({"p": product(X), "q": X[:, 1]}))
    assert list(map(str, both.formula_)) == ["y * time", "time"]


def test_names_of_columns_do_not_collide_with_those_of_outputs(monkeypatch):
    """Without pandas: the names are set as scikit-learn sets them."""

    def validate(estimator, *args, **kwargs):
        estimator.feature_names_in_ = np.array(["y1", "y1_"], dtype=object)
        return estimator_module.validate_data.original(estimator, *args, **kwargs)

    validate.original = estimator_module.validate_data
    monkeypatch.setattr(estimator_module, "validate_data", validate)
    monkeypatch.setattr("sklearn.utils.validation._check_feature_names", lambda *args, **kwargs: None)
    X = rows()
    model = NALURegressor(seeds=2, random_state=0).fit(X, np.column_stack([product(X), np.sin(9 * X[:, 0])]))
    assert str(model.formula_[0]) == "y1 * y1_"
    assert [one.target for one in model.learned_] == ["y1__", "y2"]
    assert all(type(name) is str for name in model.learned_[0].features)
    assert all(text.startswith("y2: ") for text in model.warnings_)


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"unit": "sine"}, "unit must be one of auto, sum, product, nalu, nac, lognac, got 'sine'"),
        ({"unit": ["auto"]}, "unit must be one of auto, sum, product, nalu, nac, lognac, got ['auto']"),
        ({"scale": 1}, "scale must be True or False, got 1"),
        ({"seeds": 0}, "seeds must be a whole number >= 1, got 0"),
        ({"seeds": True}, "seeds must be a whole number >= 1, got True"),
        ({"seeds": 2.0}, "seeds must be a whole number >= 1, got 2.0"),
        ({"layers": None}, "layers must be a whole number >= 1, got None"),
        ({"steps": -1}, "steps must be a whole number >= 1, got -1"),
        ({"lr": 0}, "lr must be a finite number > 0, got 0"),
        ({"lr": True}, "lr must be a finite number > 0, got True"),
        ({"lr": "0.1"}, "lr must be a finite number > 0, got '0.1'"),
        ({"lr": float("nan")}, "lr must be a finite number > 0, got nan"),
        ({"lr": float("inf")}, "lr must be a finite number > 0, got inf"),
        ({"batch": 0}, "batch must be a whole number >= 1, or None, got 0"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": np.float32}, "dtype must be 'float32' or 'float64', got <class 'numpy.float32'>"),
        ({"random_state": -1}, "random_state: "),
        ({"random_state": "7"}, "random_state: '7' cannot be used to seed"),
        ({"unit": "nalu", "scale": True}, "nalu has no constant"),
        ({"layers": 2}, "auto has one layer"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_parameter_outside_of_its_choices_is_refused(option, message, method):
    model = NALURegressor(**option)
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        getattr(model, method)(rows(), product(rows()))
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    fitted = NALURegressor(seeds=1).fit(rows(), product(rows())).set_params(**option)
    with pytest.raises(OptionError, match=re.escape(message)):
        getattr(fitted, method)(rows(), product(rows()))
    assert str(fitted.formula_) == "x1 * x2"


def test_where_no_formula_holds_the_outputs_without_one_are_named():
    X, rng = rows(), np.random.default_rng(0)
    Y = np.column_stack([product(X), rng.normal(size=60), product(X), rng.normal(size=60)])
    model = NALURegressor(seeds=2, random_state=0).fit(X, Y)
    assert np.isfinite(model.predict(X)).all()
    with pytest.raises(OptionError, match=r"no formula holds for y2, y4; warnings_ says why, and"):
        model.predict(X, formula=True)
    assert {text[:3] for text in model.warnings_} == {"y2:", "y4:"}
    model.fit(X, Y[:, 1])
    assert model.formula_ is None
    with pytest.raises(OptionError, match="no formula holds for y;"):
        model.predict(X, formula=True)


def test_parts_must_have_the_columns_and_the_outputs_of_the_others():
    X = rows()
    model = NALURegressor(seeds=2, random_state=0).fit(X, product(X))
    with pytest.raises(ValueError, match="X has 3 features, but NALURegressor is expecting 2 features"):
        model.partial_fit(rows(columns=3), product(X))
    for shape in ((60, 1), (60, 2)):
        y = np.ones(shape)
        with pytest.raises(
            ShapeError, match=re.escape(f"y has shape {shape}, but in the calls before it was (60,)")
        ):
            model.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples|inconsistent"):
        model.partial_fit(X, product(X)[:-1])
    assert str(model.formula_) == "x1 * x2"
    model.partial_fit(X[:1], product(X)[:1])
    assert len(model.learned_.trained.y) + len(model.learned_.held_out.y) == 61


def test_after_an_error_the_estimator_knows_what_it_knew():
    X = rows()
    model = NALURegressor(seeds=2, random_state=0).fit(X, product(X))
    before = pickle.dumps(model)
    with pytest.raises(TableError, match=r"^NALURegressor: row 61, column 'x2': 1e\+99 is too large"):
        model.partial_fit([[1.0, 1.0], [1.0, 1e99]], [1.0, 1.0])
    assert pickle.dumps(model) == before


def test_a_first_part_that_teaches_nothing_leaves_the_estimator_unfitted():
    model = NALURegressor(seeds=2)
    with pytest.raises(ValueError, match="minimum of 2"):
        model.partial_fit(rows(1), [1.0])
    with pytest.raises(TableError, match="in every row the target or a factor is 0"):
        model.set_params(unit="product").partial_fit(rows(), np.zeros(60))
    with pytest.raises(NotFittedError):
        model.predict(rows())
    assert str(model.partial_fit(rows(columns=3), product(rows(columns=3))).formula_) == "x1 * x2"


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (["a"] * 60, ValueError, "could not convert string to float"),
        (np.full(60, np.nan), ValueError, "y contains NaN"),
        (np.full(60, 1j), ValueError, "Complex data not supported"),
        (sparse.csr_array(np.ones((60, 2))), TypeError, "Sparse data was passed for y"),
        (np.ones((60, 2, 1)), ValueError, "dim 3"),
        (None, ValueError, "requires y to be passed"),
    ],
)
def test_outputs_that_are_no_finite_numbers_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        NALURegressor().fit(rows(), y)


def test_messages_of_the_command_line_become_messages_of_a_class():
    X = np.column_stack([rows(), np.ones(60)])
    model = NALURegressor(seeds=2, random_state=0).fit(X, 3.7 * product(X))
    assert any(text.endswith("fits them; try scale") for text in model.warnings_)
    assert any(text.endswith("what it does; leave it out") for text in model.warnings_)
    assert not any("--" in text for text in model.warnings_)
    with pytest.raises(
        TableError, match=r"^NALURegressor: row 0, .*; rescale the column, or choose dtype float64$"
    ):
        NALURegressor("nac").fit(X + 1e30 * (np.arange(60)[:, None] == 0), X[:, 0])
    assert _in_python("train longer (--steps); lower --lr; try --unit auto") == (
        "train longer (steps); lower lr; try unit auto"
    )
    assert _in_python("a --b and c--scale or line 3") == "a --b and c--scale or line 3"


# --- scikit-learn -----------------------------------------------------------------------------------------------


#: One is for other array libraries, and one wants pandas where that is not installed.
SKIPPED = {"check_array_api_input", "check_regressor_data_not_an_array"}


@pytest.fixture
def short_search(monkeypatch):
    """The checks learn from wide tables of noise, in which the search for simple constants only takes time."""
    monkeypatch.setattr(lattice, "MOST_TRIES", 1000)


@pytest.mark.usefixtures("short_search")
@parametrize_with_checks([NALURegressor(), NALURegressor("nalu", seeds=2, steps=10)])
def test_the_contract_of_scikit_learn(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        assert check.func.__name__ in SKIPPED
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [NALURegressor(), NALURegressor(scale=True), NALURegressor("product")])
def test_no_check_fails_without_shortening_the_search(estimator):
    checked = check_estimator(estimator, on_fail=None, on_skip=None)
    assert {one["status"] for one in checked} <= {"passed", "skipped"}


def test_its_tags_are_honest():
    tags = NALURegressor().__sklearn_tags__()
    assert tags.estimator_type == "regressor"
    assert tags.target_tags.multi_output
    assert tags.target_tags.required
    assert not tags.input_tags.sparse
    assert not tags.input_tags.allow_nan
    poor = [
        NALURegressor(unit).__sklearn_tags__().regressor_tags.poor_score for unit in ("auto", "sum", "product")
    ]
    assert poor == [False, False, True]
    assert not hasattr(NALURegressor, "set_predict_request")


# --- the import -------------------------------------------------------------------------------------------------


def python(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_the_package_imports_scikit_learn_only_where_it_is_asked_for():
    done = python(
        "import sys, nalu_np as nn\n"
        "from nalu_np import *\n"
        "assert 'sklearn' not in sys.modules and 'scipy' not in sys.modules\n"
        "assert 'NALURegressor' not in globals()\n"
        "assert nn.NALURegressor.__module__ == 'nalu_np.estimator' and 'sklearn' in sys.modules\n"
        "from nalu_np import NALURegressor\n"
        "assert NALURegressor is nn.NALURegressor"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["sklearn", "sklearn.utils.validation"])
def test_without_scikit_learn_the_rest_works_and_the_error_names_the_extra(missing):
    done = python(
        f"import sys\nsys.modules[{missing!r}] = None\n"
        "import nalu_np as nn\nfrom nalu_np import *\n"
        "nn.NALU(2, 1)\n"
        "try: nn.NALURegressor\n"
        "except ImportError as error: print(error)\n"
    )
    install = "python -m pip install '.[sklearn]' in the project's folder"
    assert done.stdout == f"NALURegressor needs scikit-learn 1.6 or newer: {install}\n", done.stderr


def test_without_scikit_learn_in_this_process(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "nalu_np.estimator")
    monkeypatch.delattr(nn, "estimator")
    with pytest.raises(ImportError, match=re.escape("python -m pip install '.[sklearn]' in the project's folder")):
        _ = nn.NALURegressor


def test_the_package_has_it_and_no_other_name():
    assert nn.NALURegressor is NALURegressor
    assert "NALURegressor" not in nn.__all__
    with pytest.raises(AttributeError, match="module 'nalu_np' has no attribute 'nonsense'"):
        _ = nn.nonsense
