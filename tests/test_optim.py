"""RMSprop: its trajectory by hand and in exact arithmetic, what it has of PyTorch and of Keras, and replicas."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np.errors import OptionError
from nalu_np.optim import Optimizer


def trajectory(optimizer, gradients):
    """The deltas of each step, for gradients (steps, S, P)."""
    state, deltas = optimizer.init(np.zeros_like(gradients[0])), []
    for step, gradient in enumerate(gradients, start=1):
        delta, state = optimizer.update(gradient, state, step)
        deltas.append(delta)
    return np.stack(deltas), state


def test_three_steps_by_hand():
    """alpha = 3/4 and g = 2, 4, 0: v = 1, 4.75, 3.5625."""
    optimizer = nn.RMSprop(lr=0.5, alpha=0.75, eps=1.0)
    deltas, state = trajectory(optimizer, np.array([2.0, 4.0, 0.0]).reshape(3, 1, 1))
    np.testing.assert_allclose(deltas.ravel(), [-0.5, -2 / (math.sqrt(4.75) + 1), 0], rtol=1e-15)
    assert [v.tolist() for v in state] == [[[3.5625]]]


@settings(max_examples=40, deadline=None)
@given(
    gradients=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6),
    alpha=st.sampled_from([0.9, 0.99]),
    eps=st.sampled_from([1e-8, 1e-7, 1e-2]),
)
def test_a_trajectory_in_exact_arithmetic(gradients, alpha, eps):
    """The recursion in fractions, the root in fifty digits."""
    found, _ = trajectory(nn.RMSprop(lr=0.01, alpha=alpha, eps=eps), np.reshape(gradients, (-1, 1, 1)))
    v = Fraction(0)
    with mpmath.workdps(50):
        for g, delta in zip(map(Fraction, gradients), found.ravel(), strict=True):
            v = Fraction(alpha) * v + (1 - Fraction(alpha)) * g * g
            root = mpmath.sqrt(mpmath.mpf(v.numerator) / v.denominator)
            expected = -mpmath.mpf(0.01) * mpmath.mpf(float(g)) / (root + mpmath.mpf(eps))
            assert delta == pytest.approx(float(expected), rel=1e-12)


def keras_3(gradients, lr, rho, eps):
    """eps inside the root."""
    v, deltas = 0.0, []
    for g in gradients:
        v = rho * v + (1 - rho) * g * g
        deltas.append(-lr * g / math.sqrt(v + eps))
    return np.array(deltas)


def test_the_place_of_eps_counts_for_small_gradients_alone():
    shape = np.random.default_rng(0).uniform(0.5, 1.0, 30)
    apart = []
    for size in (1.0, 1e-2, 1e-4):
        ours, _ = trajectory(nn.RMSprop(lr=0.1, alpha=0.9, eps=1e-7), size * shape.reshape(-1, 1, 1))
        apart.append(np.max(np.abs(ours.ravel() / keras_3(size * shape, 0.1, 0.9, 1e-7) - 1)))
    assert apart[0] < 1e-6 < 1e-3 < apart[1] < 1e-2 < 1 < apart[2]


def test_without_eps_the_length_of_a_step_does_not_depend_on_the_size_of_the_gradients():
    gradients = np.random.default_rng(1).normal(size=(20, 3, 4))
    optimizer = nn.RMSprop(eps=1e-30)
    np.testing.assert_allclose(
        trajectory(optimizer, 1e6 * gradients)[0], trajectory(optimizer, gradients)[0], rtol=1e-12
    )
    np.testing.assert_array_equal(trajectory(optimizer, -gradients)[0], -trajectory(optimizer, gradients)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_keeps_the_precision_and_writes_nothing(dtype):
    optimizer = nn.RMSprop(lr=np.float64(0.1), alpha=np.float64(0.9))
    gradient, state = np.ones((2, 3), dtype), optimizer.init(np.zeros((2, 3), dtype))
    for array in (gradient, *state):
        array.flags.writeable = False
    delta, after = optimizer.update(gradient, state, 1)
    assert {delta.dtype, *(v.dtype for v in after)} == {np.dtype(dtype)}
    assert [v.shape for v in after] == [(2, 3)]
    assert not state[0].any()


def test_rmsprop_on_a_device(fake_cupy_float32):
    result = nn.fit(nn.NAC(2, 1), np.ones((4, 2)), np.ones((4, 1)), steps=2, optimizer=nn.RMSprop(), replicas=2)
    assert not result.diverged.any()


PROBLEM = np.random.default_rng(2).uniform(1, 2, (64, 2))


def trained(replicas, optimizer: Optimizer, steps=300):
    y = PROBLEM[:, :1] - PROBLEM[:, 1:]
    return nn.fit(
        nn.NAC(2, 1), PROBLEM, y, steps=steps, optimizer=optimizer, replicas=replicas, batch=16, every=50
    )


def test_it_trains_and_replicas_do_not_meet():
    together = trained(5, nn.RMSprop(lr=0.01, alpha=0.9, eps=1e-7), steps=1500)
    assert np.median(together.history["loss"][-1]) < 1e-3 < 1e-2 < np.median(together.history["loss"][0])
    alone = trained([3], nn.RMSprop(lr=0.01, alpha=0.9, eps=1e-7), steps=1500)
    for name, value in together.params.items():
        np.testing.assert_array_equal(alone.params[name][0], value[3])


def test_a_replica_that_diverges_is_frozen_and_the_others_go_on():
    """Rows that are far too large for one replica: its squares overflow float32."""
    x = np.stack([PROBLEM, 1e25 * PROBLEM, PROBLEM])
    y = x[..., :1] - x[..., 1:]
    options = {"steps": 50, "optimizer": nn.RMSprop(lr=0.01), "replicas": 3}
    result = nn.fit(nn.NAC(2, 1), x, y, **options)
    assert result.diverged.tolist() == [False, True, False]
    first = nn.NAC(2, 1).init(0, 3)
    calm = nn.fit(nn.NAC(2, 1), np.stack([PROBLEM] * 3), np.stack([y[0]] * 3), **options)
    for name, value in result.params.items():
        np.testing.assert_array_equal(value[1], first[name][1])
        np.testing.assert_array_equal(value[::2], calm.params[name][::2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0}, "RMSprop: lr must be a number > 0, got 0"),
        ({"eps": -1e-8}, "RMSprop: eps must be a number > 0, got -1e-08"),
        ({"alpha": "0.9"}, "RMSprop: alpha must be a number > 0, got '0.9'"),
        ({"alpha": 1}, "RMSprop: alpha must be a number with 0 < alpha < 1, got 1.0"),
        ({"alpha": math.inf}, "RMSprop: alpha must be a number > 0, got inf"),
    ],
)
def test_options_outside_their_range_are_named(options, words):
    with pytest.raises(OptionError) as caught:
        nn.RMSprop(**options)
    assert str(caught.value) == words
