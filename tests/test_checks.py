"""The contract of every registered layer, the mistakes that the checker must find, and the checker itself."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_vjps import RIGHT, WRONG, Written, altered, caught, decay, pulled, table, with_methods

import nalu_np as nn
from nalu_np import checks
from nalu_np.errors import GradientError, OptionError
from nalu_np.layer import INITIALIZERS, REGISTRY, Cell, Layer
from nalu_np.layers.dense import CHOICES
from nalu_np.units.nalu import GATES
from nalu_np.vjps import ACTIVATIONS, unbroadcast

REGISTERED = checks.registered_layers()


def classes(part):
    return {type(part)}.union(*map(classes, part.parts))


def accusation(check, layer, **options):
    """The message without the layer's name."""
    with pytest.raises(GradientError) as caught:
        check(layer, **options)
    who, _, message = str(caught.value).partition(": ")
    assert who == repr(layer)
    return message


# --- the contract ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", REGISTERED, ids=repr)
def test_every_registered_layer_keeps_the_contract(layer, device):
    examples = 10 if device == "numpy" else 2
    report = nn.check_layer(layer, examples=examples)
    assert (report.layer, report.examples) == (repr(layer), examples)
    assert report.errors.keys() == {*layer.shapes(), "x"}


def test_every_registered_class_is_checked():
    of_the_library = {cls for cls in REGISTRY.values() if cls.__module__.startswith("nalu_np")}
    assert of_the_library <= set().union(*map(classes, REGISTERED))


def test_every_option_of_a_unit_is_checked():
    assert {layer.gate for layer in REGISTERED if isinstance(layer, nn.NALU)} == set(GATES)
    assert {layer.tied for layer in REGISTERED if isinstance(layer, nn.NALU)} == {True, False}
    assert {layer.activation for layer in REGISTERED if isinstance(layer, nn.Dense)} == set(CHOICES)


@pytest.mark.parametrize("layer", RIGHT, ids=repr)
def test_a_right_layer_of_ones_own_keeps_the_contract_unregistered(layer):
    before = dict(REGISTRY)
    nn.check_layer(layer, examples=5)
    assert before == REGISTRY


@pytest.mark.parametrize(
    "layer",
    [
        nn.NALU(100, 2),
        nn.NAC(300, 10),
        nn.chain(nn.NAC(20, 2), nn.NALU(2, 1)),
        nn.chain(*(nn.LogNAC(n, 2) for n in (8, 2, 2))),
    ],
    ids=repr,
)
def test_a_wide_or_deep_layer_keeps_the_contract(layer):
    nn.check_layer(layer, examples=5)


sizes = st.integers(1, 6)
eps = st.sampled_from([1e-7, 1e-3, 0.5])
initializers = st.sampled_from(sorted(INITIALIZERS))
layers = st.one_of(
    st.builds(nn.NAC, sizes, sizes, initializer=initializers),
    st.builds(nn.LogNAC, sizes, sizes, initializer=initializers, eps=eps),
    st.builds(nn.NALU, sizes, sizes, tied=st.booleans(), gate=st.sampled_from(sorted(GATES)), eps=eps),
    st.builds(nn.Dense, sizes, sizes, activation=st.sampled_from(sorted(ACTIVATIONS)), bias=st.booleans()),
)


@given(layer=layers, seed=st.integers(0, 2**31 - 1), along_time=st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_layer_of_any_shape_passes_gradcheck(layer, seed, along_time):
    layer = nn.scan(nn.Accumulator(layer)) if along_time else layer
    report = nn.gradcheck(layer, seed=seed)
    assert max(report.errors.values()) <= checks.TOLERANCE


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.bug)
def test_a_mistake_is_found_and_named(wrong):
    by, message = caught(wrong.layer)
    assert by == wrong.by
    assert message.startswith(f"{wrong.layer!r}: {wrong.words}")


def test_mistakes_are_many_and_each_has_a_name_of_its_own():
    assert len({wrong.bug for wrong in WRONG}) == len(WRONG) >= 60


def test_the_table_of_mistakes_has_a_row_for_each(monkeypatch):
    monkeypatch.setattr(
        "wrong_vjps.WRONG", [*WRONG[:1], dataclasses.replace(WRONG[0], bug="|x|", layer=nn.NAC(2, 1))]
    )
    header, _, found, missed = table().splitlines()
    assert header == "| bug | caught by |"
    assert found.startswith(f"| {WRONG[0].bug} | gradcheck: dW_hat is not the derivative")
    assert missed == r"| \|x\| | **nothing** |"


def test_a_mistake_at_some_points_is_found_with_enough_examples():
    layer = Written(3, 3, change="the gate's gradient cut off where it saturates")
    assert nn.check_layer(layer, seed=1).examples == 1
    assert "dG is not the derivative" in accusation(nn.check_layer, layer, seed=1, examples=20)


def test_an_error_inside_a_layer_names_the_clause_and_keeps_its_cause():
    layer = altered(lambda params, x, y, vjp: 1 / 0)(3, 2)
    with pytest.raises(GradientError, match=r"gradient: ZeroDivisionError: division by zero$") as caught:
        nn.check_layer(layer)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        nn.gradcheck(layer)


@pytest.mark.parametrize("check", [nn.gradcheck, nn.check_layer])
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.NAC, "expected a layer, got the class NAC; build it, e.g. NAC(2, 1)"),
        (nn.Dense, "expected a layer, got the class Dense; build it, e.g. Dense(2, 1)"),
        (dict, "expected a layer, got <class 'dict'>"),
        (nn.Accumulator(nn.NAC(2, 1)), "expected a layer, got Accumulator(NAC(2, 1))"),
        (None, "expected a layer, got None"),
    ],
)
def test_what_is_no_layer_is_not_checked(check, layer, words):
    with pytest.raises(OptionError, match=f"^{check.__name__}: {re.escape(words)}$"):
        check(layer)


def test_a_point_in_the_wrong_order_is_refused():
    words = "gradcheck: params must be a mapping of names to arrays, got ndarray; call gradcheck(layer, params, x)"
    with pytest.raises(OptionError, match=f"^{re.escape(words)}$"):
        nn.gradcheck(nn.NAC(2, 1), np.ones((3, 2)), nn.NAC(2, 1).init())


FORWARD = "forward() must return y, vjp: an array and a function, got "
PULLED = "vjp(dy) must return dx, dparams: an array and a dict of arrays, got "


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (altered(lambda params, x, y, vjp: y), FORWARD + "ndarray"),
        (altered(lambda params, x, y, vjp: None), FORWARD + "NoneType"),
        (altered(lambda params, x, y, vjp: (y, vjp, x)), FORWARD + "(ndarray, function, ndarray)"),
        (altered(lambda params, x, y, vjp: (y, y)), FORWARD + "(ndarray, ndarray)"),
        (altered(lambda params, x, y, vjp: (vjp, y)), FORWARD + "(function, ndarray)"),
        (altered(lambda params, x, y, vjp: (1.0, vjp)), FORWARD + "(float, function)"),
        (pulled(lambda dx, d: dx), PULLED + "ndarray"),
        (pulled(lambda dx, d: d), PULLED + "dict"),
        (pulled(lambda dx, d: (dx, d["W"])), PULLED + "(ndarray, ndarray)"),
        (pulled(lambda dx, d: (dx, d["W"], d["b"])), PULLED + "(ndarray, ndarray, ndarray)"),
        (pulled(lambda dx, d: (dx, (d["W"], d["b"]))), PULLED + "(ndarray, (ndarray, ndarray))"),
        (pulled(lambda dx, d: (dx, {**d, "b": 0.0})), "vjp(dy) must give db as an array, got float"),
        (pulled(lambda dx, d: (dx, {**d, "W": None})), "vjp(dy) must give dW as an array, got NoneType"),
        (pulled(lambda dx, d: ([dx], d)), "vjp(dy) must give dx as an array, got list"),
    ],
)
def test_what_is_not_of_the_form_of_a_layer_is_told_by_its_types(layer, words):
    layer = layer(3, 2) if isinstance(layer, type) else layer
    for check in (nn.gradcheck, nn.check_layer):
        assert accusation(check, layer) == words


def test_a_form_that_only_a_first_layer_has_is_told_too():
    def spared(params, x, y, vjp):
        return y, lambda dy, need_dx=True: vjp(dy) if need_dx else vjp(dy)[1]

    layer = altered(spared)(3, 2)
    assert nn.gradcheck(layer)
    assert accusation(nn.check_layer, layer) == PULLED + "dict"


def test_a_pair_may_be_a_list():
    class Listed(nn.NAC):
        def forward(self, params, x, **options):
            y, vjp = super().forward(params, x, **options)
            return [y, lambda dy, need_dx=True: [*vjp(dy, need_dx)]]

    assert nn.check_layer(Listed(2, 1))


def test_a_layer_that_is_not_finished_says_what_is_missing():
    class Half(Layer):
        def shapes(self):
            return {"W": (2, 1)}

    assert (
        accusation(nn.check_layer, Half(2, 1)) == "options: NotImplementedError: Half must define draw(name, rng)"
    )


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (lambda params: {"b": params["b"], "W": params["W"]}, "init() must give the names of shapes(), in order"),
        (lambda params: {**params, "b": params["b"][:, None]}, "init(): b must have shape (5, 2)"),
    ],
)
def test_initial_values_have_names_and_shapes(drawn, words):
    layer = with_methods(init=lambda self, *arguments: drawn(nn.Dense.init(self, *arguments)))
    assert accusation(nn.check_layer, layer) == words


def test_a_nudge_of_the_gradient_that_a_shared_x_alone_gets_is_found():
    def nudged(params, x, y, vjp):
        return y, lambda dy, need_dx=True: vjp(dy * (1 + 1e-4 * (dy.ndim > x.ndim)), need_dx)

    message = accusation(nn.check_layer, altered(nudged)(3, 2))
    assert message == "what replicas share must get the sum of their gradients"


# --- penalties -------------------------------------------------------------------------------------------------


def test_a_penalty_may_begin_late():
    begun = []

    def penalty(self, params, x, step):
        begun.append(step)
        return None if step < 1000 else decay().penalty(params, x, step)

    nn.check_layer(with_methods(penalty=penalty))
    assert {1, 1000, 1_000_000} == set(begun)


def test_a_penalty_whose_slope_cannot_be_measured_is_let_through():
    def penalty(self, params, x, step):
        """A kink wherever one looks: W is kept from moving at all."""
        W = params["W"]
        return np.abs(W - W.round(1)).sum(axis=(-1, -2)), {name: 0 * q for name, q in params.items()}

    nn.check_layer(
        with_methods(penalty=penalty, project=lambda self, params: {k: v.round(1) for k, v in params.items()})
    )


def test_penalties_and_projections_of_a_chain_are_checked_too():
    wrong = decay(slope=lambda W: W)
    message = accusation(nn.check_layer, nn.chain(nn.NAC(4, 3), wrong))
    assert message.startswith("d1.W of the penalty is not the derivative: it differs by")


# --- gradcheck: the point --------------------------------------------------------------------------------------


def beyond(limit):
    """A dense layer whose dW is wrong where an x is beyond a limit."""

    def change(params, x, y, vjp):
        factor = 2.0 if np.max(x) > limit else 1.0
        return y, lambda dy, need_dx=True: (vjp(dy)[0], {"W": factor * vjp(dy)[1]["W"]})

    return altered(change)(2, 1, bias=False)


def test_the_given_point_is_the_one_that_is_checked():
    layer, W = beyond(100.0), np.array([[0.5], [-0.5]])
    assert nn.gradcheck(layer, {"W": W}, np.array([[1.0, 99.0]])).errors["W"] < 1e-9
    assert nn.gradcheck(layer).errors["W"] < 1e-9
    with pytest.raises(GradientError, match=r"dW is not the derivative: it differs by 5\.0e-01 of its size"):
        nn.gradcheck(layer, {"W": W}, np.array([[1.0, 101.0]]))
    with pytest.raises(GradientError, match="dW is not the derivative"):
        nn.gradcheck(layer, x=np.array([[1.0, 101.0]]))


def test_the_given_parameters_are_the_ones_that_are_checked():
    def change(params, x, y, vjp):
        factor = 2.0 if np.max(params["W"]) > 100 else 1.0
        return y, lambda dy, need_dx=True: (vjp(dy)[0], {"W": factor * vjp(dy)[1]["W"]})

    layer = altered(change)(2, 1, bias=False)
    nn.gradcheck(layer, {"W": np.array([[99.0], [1.0]])})
    with pytest.raises(GradientError, match="dW is not the derivative"):
        nn.gradcheck(layer, {"W": np.array([[101.0], [1.0]])})


def test_a_point_of_float32_is_checked_in_float64():
    layer = nn.NALU(2, 1)
    report = nn.gradcheck(layer, layer.init(seed=1), np.array([[1.5, 2.5]], dtype="float32"))
    assert max(report.errors.values()) < 1e-7


def test_a_point_with_replicas_and_one_without_rows():
    layer = nn.NALU(2, 1)
    nn.gradcheck(layer, layer.init(seed=1, replicas=3), full=True)
    none = nn.gradcheck(layer, x=np.zeros((0, 2)), full=True)
    assert set(none.errors.values()) == {0.0}


def test_the_point_and_its_layer_are_left_alone():
    layer = nn.NALU(2, 1)
    params, x, state = layer.init(dtype="float64"), np.ones((3, 2)), np.random.get_state()[1].copy()
    kept = {name: value.copy() for name, value in params.items()}
    nn.gradcheck(layer, params, x)
    assert all(np.array_equal(params[name], kept[name]) for name in kept)
    np.testing.assert_array_equal(x, np.ones((3, 2)))
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Dense(2, 1, activation="relu", bias=False), [[1.0, 1.0]]),
        (nn.LogNAC(2, 1), [[3.0, 0.0]]),
        (nn.NALU(2, 1), [[3.0, 0.0]]),
        (nn.NALU(2, 1, gate="abs", eps=0.5), [[0.0, 0.0]]),
        (nn.LogNAC(2, 1), [[1e300, 1e300]]),
    ],
    ids=["relu at 0", "LogNAC at 0", "NALU at 0", "NALU of |x| at 0", "overflow"],
)
@pytest.mark.parametrize("full", [False, True])
def test_a_given_point_at_a_kink_is_refused(layer, x, full):
    params = {name: np.full(shape, 4.0) for name, shape in layer.shapes().items()}
    if isinstance(layer, nn.Dense):
        params["W"] = np.array([[1.0], [-1.0]])
    message = accusation(nn.gradcheck, layer, params=params, x=np.array(x), full=full)
    assert message == "the measured slope does not settle; the point lies at a kink, overflows or is all rounding"


def test_a_point_beside_a_kink_is_fine():
    layer = nn.Dense(2, 1, activation="relu", bias=False)
    for beside in (1e-3, -1e-4):
        report = nn.gradcheck(layer, {"W": np.array([[1.0], [-1.0]])}, np.array([[1.0 + beside, 1.0]]), full=True)
        assert max(report.errors.values()) < 1e-7


def test_a_point_that_is_drawn_is_drawn_again_at_a_kink():
    tried = []

    def folded(params, x, y, vjp):
        """A kink at every point of the first two that are tried."""
        point = x[0, 0] if not tried else tried[-1]
        if not tried or (len(tried) < 2 and abs(x[0, 0] - point) > 0.1 * abs(point)):
            tried.append(float(x[0, 0]))
        return y + np.abs(x[..., :1] - tried[-1]) * (len(tried) < 2), vjp

    nn.gradcheck(altered(folded)(3, 2))
    assert len(tried) == 2


def test_kinks_everywhere_are_refused_in_the_end():
    def folded(params, x, y, vjp):
        start.setdefault("x", x.copy())
        if np.abs(x / start["x"] - 1).max() > 0.1:
            start["x"] = x.copy()
        return y + np.abs(x - start["x"]).sum(), vjp

    start = {}
    assert "does not settle" in accusation(nn.gradcheck, altered(folded)(3, 2))


# --- gradcheck: the measurement --------------------------------------------------------------------------------


def test_every_entry_is_checked_where_a_direction_sees_none_of_a_small_one():
    layer = pulled(lambda dx, d: (dx, {**d, "W": d["W"] * np.array([[1.0], [2.0], [1.0]])}))
    params = {"W": np.ones((3, 2)), "b": np.zeros(2)}
    x = np.array([[1e4, 1e-4, 1e4]])
    for seed in range(5):
        nn.gradcheck(layer, params, x, seed=seed)
    message = accusation(nn.gradcheck, layer, params=params, x=x, full=True)
    assert message.startswith(("dW[1, 0] is not the derivative", "dW[1, 1] is not the derivative"))


@pytest.mark.parametrize("layer", [nn.NALU(3, 2, eps=0.1), nn.scan(nn.Accumulator(nn.NAC(2, 2)))], ids=repr)
def test_every_entry_of_a_right_layer_passes(layer):
    for seed in range(3):
        assert max(nn.gradcheck(layer, seed=seed, full=True).errors.values()) < checks.TOLERANCE


def test_no_example_checks_nothing_and_is_refused():
    with pytest.raises(OptionError, match="check_layer: examples must be 1 or more, got 0"):
        nn.check_layer(nn.NAC(3, 2), examples=0)


def test_the_tolerance_is_what_is_allowed():
    wrong = Written(3, 3, change="dM_hat off by a part in 100,000")
    assert 9e-6 < nn.gradcheck(wrong, seed=1, tolerance=1e-4).errors["M_hat"] < 1.1e-5
    assert accusation(nn.gradcheck, wrong, seed=1).endswith("from the measured slope (allowed 1e-06)")
    assert "(allowed 1e-20)" in accusation(nn.gradcheck, nn.NALU(3, 2), tolerance=1e-20)


def test_all_wrong_gradients_are_named_and_a_flipped_sign_is_off_by_twice_its_size():
    flipped = pulled(lambda dx, d: (-dx if dx is not None else None, {**d, "W": -d["W"]}))
    message = accusation(nn.gradcheck, flipped)
    assert message.startswith("dW is not the derivative: it differs by 2.0e+00 of its size")
    assert message.endswith("(allowed 1e-06); nor is dx")
    assert accusation(nn.gradcheck, pulled(lambda dx, d: (2 * dx, {n: 0 * q for n, q in d.items()}))).endswith(
        "; nor are db, dx"
    )


def test_a_seed_gives_the_same_report_and_another_seed_another():
    layer = nn.NALU(3, 2)
    assert nn.gradcheck(layer, seed=3) == nn.gradcheck(layer, seed=3)
    assert nn.gradcheck(layer, seed=3) != nn.gradcheck(layer, seed=4)
    assert nn.check_layer(layer, seed=3, examples=2) == nn.check_layer(layer, seed=3, examples=2)
    assert nn.check_layer(layer, seed=3) != nn.check_layer(layer, seed=4)


def test_a_report_says_what_was_checked():
    report = nn.Report("NAC(2, 1)", 7, {"W_hat": 1e-9, "M_hat": 2.5e-8, "x": 0.0})
    assert str(report) == "NAC(2, 1): 7 examples, largest error 2.5e-08 in dM_hat"
    assert [field.name for field in dataclasses.fields(report)] == ["layer", "examples", "errors"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.examples = 8
    assert nn.gradcheck(nn.NAC(2, 1)).examples == 1


def test_a_report_keeps_the_largest_error_of_all_examples():
    layer, seen = nn.NALU(3, 2), []
    for example in range(4):
        rng = np.random.default_rng((0, example))
        seen.append(nn.gradcheck(layer, seed=int(rng.integers(2**31))).errors)
    assert nn.check_layer(layer, examples=4).errors == {name: max(e[name] for e in seen) for name in seen[0]}


@pytest.mark.parametrize(
    ("value", "slope"),
    [
        (math.sin, 1.0),
        (math.exp, 1.0),
        (lambda t: math.tanh(300 * t), 300.0),
        (lambda t: abs(t - 1e-4), -1.0),
        (lambda t: max(t, -1.5e-3), 1.0),
        (lambda t: 2 * t if abs(t) < 2.5e-6 else 7.0, 2.0),
        (lambda t: t if abs(t) < 1e-3 else math.inf, 1.0),
        (lambda t: 5.0, 0.0),
    ],
    ids=["sin", "exp", "steep", "beside a kink", "beside a clip", "a needle", "beside overflow", "constant"],
)
def test_a_slope_is_measured(value, slope):
    assert checks.directional_error(value, slope, 1.0) <= checks.TOLERANCE


@pytest.mark.parametrize(
    ("claimed", "error"), [(1.001, 1e-3), (2.0, 0.5), (-1.0, 2.0), (0.0, 1.0), (math.nan, math.inf)]
)
def test_a_wrong_slope_is_measured(claimed, error):
    assert checks.directional_error(math.sin, claimed, 1e-3) == pytest.approx(error, rel=1e-2)


@pytest.mark.parametrize(
    ("value", "slope"),
    [
        (abs, 0.0),
        (lambda t: max(t, 0.0), 0.5),
        (lambda t: float(t > 0), 0.0),
        (lambda t: t + 1e-9 * math.sin(1e20 * t), 1.1),
        (lambda t: math.inf, 0.0),
        (lambda t: math.nan, math.nan),
        (lambda t: 2 * t if abs(t) < 2.5e-6 else 7.0, 3.0),
    ],
    ids=["a kink", "a hinge", "a jump", "noise", "infinite", "undefined", "a needle, and a wrong slope"],
)
def test_what_cannot_be_measured_is_no_accusation(value, slope):
    with pytest.raises(checks._KinkError):
        checks.directional_error(value, slope, 1.0)


def test_a_slope_drowned_in_rounding_is_no_accusation():
    rng, noise = np.random.default_rng(0), 1e6 * np.finfo(float).eps
    for _ in range(200):
        error = checks.directional_error(lambda t: 1e6 + 1e-7 * t + noise * rng.uniform(-1, 1), 1e-7, 1e6)
        assert error <= checks.TOLERANCE


def test_what_a_sigmoid_does_below_its_floor_is_no_accusation():
    layer = nn.Dense(1, 1, activation="sigmoid", bias=False)
    assert nn.gradcheck(layer, {"W": np.array([[-200.0]])}, np.array([[1.0], [2.0]])).errors["W"] < 1e-7


# --- surrogates ------------------------------------------------------------------------------------------------


class Rounded(nn.Dense):
    """A straight-through estimator: y is rounded, the vjp is that of no rounding."""

    def forward(self, params, x, **options):
        y, vjp = super().forward(params, x, **options)
        return np.round(y), vjp


class Declared(Rounded):
    def surrogate(self, params, x):
        return nn.Dense.forward(self, params, x)[0]


@pytest.mark.parametrize("around", [lambda layer: layer, lambda layer: nn.chain(nn.NAC(2, 3), layer)])
def test_a_surrogate_passes_where_it_is_declared_and_there_alone(around):
    nn.check_layer(around(Declared(3, 2)), examples=3)
    assert "is not the derivative" in accusation(nn.gradcheck, around(Rounded(3, 2)))


# --- cells -----------------------------------------------------------------------------------------------------


class Leaky(Cell):
    """h = k h + x, y = h^2."""

    wrong = 1.0

    def shapes(self):
        return {"k": (1,)}

    def draw(self, name, rng):
        return rng.uniform(0, 1, (1,))

    def start(self, params, x):
        return 0 * x * params["k"][..., None]

    def step(self, params, x, state, **options):
        k = params["k"][..., None]
        h = k * state + x

        def vjp(dy, dstate, need_dx=True):
            dh = 2 * h * dy + dstate
            dk = unbroadcast((dh * state).sum(axis=-1).sum(axis=-1)[..., None], params["k"])
            return (unbroadcast(dh, x) if need_dx else None), {"k": dk}, self.wrong * dh * k

        return (h * h, h), vjp


class Leakier(Leaky):
    wrong = 0.9


def test_a_cell_of_ones_own_is_checked_along_time():
    nn.check_layer(nn.scan(Leaky(2, 2)), examples=5)
    assert "dk is not the derivative" in accusation(nn.check_layer, nn.scan(Leakier(2, 2)))
