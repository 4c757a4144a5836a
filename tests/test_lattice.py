"""Least squares on the lattice, held against trying every point."""

import itertools
import time
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nalu_np import lattice
from nalu_np.lattice import POINTS, least_squares, nearest, rounded, within

seeds = st.integers(0, 2**32 - 1)


def every_point(columns):
    return np.array(list(itertools.product(np.sort(POINTS), repeat=columns)))


def patiently(A, t, most, **options):
    """`within` without its limit."""
    with mock.patch.object(lattice, "MOST_TRIES", 10**6):
        return [tuple(k.tolist()) for k in within(A, t, most, **options)]


def errors(A, t, points):
    e = points @ A.T - t
    return np.sum(e * e, axis=1)


@st.composite
def problems(draw):
    """A (N, P) of small whole numbers, some of low rank, and t off the lattice: no error ties with a bound."""
    columns, rows = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(seeds))
    A = rng.integers(-3, 4, (rows, columns)).astype(float)
    kind = draw(st.sampled_from(["any", "twins", "zeros", "dependent"]))
    if columns > 1 and kind != "any":
        A[:, -1] = {"twins": A[:, 0], "zeros": 0 * A[:, 0], "dependent": A[:, 0] + A[:, -2] / 2}[kind]
    true = rng.choice(POINTS, columns)
    return A, A @ true + rng.normal(size=rows) * draw(st.sampled_from([0.0, 0.1, 2.0]))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), place=st.integers(0, 400))
def test_within_gives_just_the_points_that_brute_force_finds(problem, place):
    A, t = problem
    points = every_point(A.shape[1])
    reached = errors(A, t, points)
    levels = np.sort(reached)
    # The bound lies between two errors that differ: rounding decides nothing.
    gaps = np.flatnonzero(np.diff(levels) > 1e-6 * (1 + levels[1:]))
    assume(len(gaps))
    gap = gaps[gaps <= max(place, gaps[0])].max()
    most = levels[gap : gap + 2].mean()
    found = patiently(A, t, most)
    assert len(found) == len(set(found))
    assert set(found) == {tuple(k) for k in points[reached <= most].tolist()}


@settings(max_examples=20, deadline=None)
@given(problem=problems())
def test_without_a_bound_every_point_comes_and_the_nearest_early(problem):
    A, t = problem
    count = len(POINTS) ** A.shape[1]
    found = patiently(A, t, np.inf)
    assert len(found) == len(set(found)) == count
    assert set(found) == {tuple(k) for k in every_point(A.shape[1]).tolist()}
    assert not list(within(A, t, -1.0))


def test_of_points_as_near_the_simplest_come_first():
    first = next(within(np.zeros((3, 2)), np.ones(3), np.inf))
    assert first.tolist() == [0.0, 0.0]
    assert POINTS[:5].tolist() == [0.0, 0.5, -0.5, 1.0, -1.0]
    ahead = list(itertools.islice(within(np.zeros((1, 1)), np.zeros(1), 1.0), 4))
    assert [k.item() for k in ahead] == [0.0, 0.5, -0.5, 1.0]


def test_a_point_that_was_given_does_not_change_later():
    search = within(np.eye(2), np.zeros(2), np.inf)
    first = next(search)
    kept = first.copy()
    next(search)
    assert first.tolist() == kept.tolist()


def test_the_search_gives_up_and_remains_an_iterator(monkeypatch):
    monkeypatch.setattr(lattice, "MOST_TRIES", 10)
    # A step for each constant of the first point, then one for each of the next.
    assert len(list(within(np.eye(2), np.zeros(2), np.inf))) == 9
    assert len(list(within(np.eye(10), np.zeros(10), np.inf))) == 1
    assert not list(within(np.eye(11), np.zeros(11), np.inf))


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_a_narrowing_search_goes_from_one_point_to_a_better_one(problem):
    A, t = problem
    points = every_point(A.shape[1])
    found = np.array(patiently(A, t, np.inf, narrowing=True))
    reached = errors(A, t, found)
    assert (np.diff(reached) < 1e-12 * (1 + t @ t)).all()
    assert reached[-1] <= errors(A, t, points).min() + 1e-12 * (1 + t @ t)
    assert len(found) < len(points) / 2 or len(points) == len(POINTS)
    # Within a bound, too.
    bound = reached[0] * (1 + 1e-9) + 1e-12
    assert patiently(A, t, bound, narrowing=True)[-1] == tuple(found[-1])
    assert not patiently(A, t, reached[-1] * (1 - 1e-6) - 1e-9, narrowing=True)


def test_a_wide_search_ends_soon():
    rng = np.random.default_rng(0)
    A, t = rng.normal(size=(20, 300)), rng.normal(size=20)
    started = time.perf_counter()
    assert sum(1 for _ in within(A, t, 1e-9)) == 0
    assert len(nearest(A, t)) == 300
    assert time.perf_counter() - started < 5


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_nearest_is_what_brute_force_finds(problem):
    A, t = problem
    best = nearest(A, t)
    lowest = errors(A, t, every_point(A.shape[1])).min()
    assert np.isin(best, POINTS).all()
    assert errors(A, t, best[None])[0] <= lowest + 1e-12 * (1 + t @ t)


def test_nearest_is_not_only_what_rounding_gives():
    """Columns that are nearly alike: rounding one at a time leaves the valley."""
    A = np.array([[1.0, 0.9], [1.0, 1.1], [1.0, 1.0]])
    t = A @ [0.74, 0.74]
    near, apart = errors(A, t, np.array([nearest(A, t), rounded(least_squares(A, t))]))
    assert rounded(least_squares(A, t)).tolist() == [0.5, 0.5]
    assert near == pytest.approx(errors(A, t, every_point(2)).min())
    assert near < apart / 100


def test_where_nothing_comes_in_time_nearest_is_the_rounded_least_squares(monkeypatch):
    monkeypatch.setattr(lattice, "MOST_TRIES", 1)
    A = np.diag([1.0, 2.0])
    assert nearest(A, A @ [0.8, -2.1]).tolist() == [1.0, -2.0]


# --- least squares --------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 8), columns=st.integers(1, 5), exponent=st.floats(-20, 20), seed=seeds)
def test_least_squares_are_numpys_in_units_of_the_columns(rows, columns, exponent, seed):
    rng = np.random.default_rng(seed)
    A, t = rng.normal(size=(rows, columns)), rng.normal(size=rows)
    A[:, rng.integers(columns)] *= rng.integers(0, 2)
    values = np.linalg.svd(A / np.maximum(np.sqrt(np.mean(A * A, axis=0)), 1e-300), compute_uv=False)
    assume(not ((values > 1e-14) & (values < 1e-3)).any())  # neither singular nor nearly so
    size = 10 ** rng.uniform(-abs(exponent), abs(exponent), columns)
    W = least_squares(A * size, t) * np.where(A.any(axis=0), size, 1.0)
    root = np.sqrt(np.mean(A * A, axis=0))
    root[root == 0] = 1.0
    expected = np.linalg.lstsq(A / root, t, rcond=None)[0] / root
    # As good, and in these units as short: what NumPy gives for columns of size 1.
    assert np.linalg.norm(A @ W - t) <= np.linalg.norm(A @ expected - t) + 1e-9 * np.linalg.norm(t)
    assert np.linalg.norm(W * root) <= np.linalg.norm(expected * root) * (1 + 1e-6) + 1e-9
    if rows >= columns and np.linalg.cond(A) < 1e3:
        np.testing.assert_allclose(W, np.linalg.lstsq(A, t, rcond=None)[0], rtol=1e-8, atol=1e-10)


def test_of_many_least_squares_the_shortest_in_units_of_the_columns():
    a = np.array([1.0, 2.0, 3.0])
    A = np.column_stack([a, a, 0 * a])
    np.testing.assert_allclose(least_squares(A, 6 * a), [3.0, 3.0, 0.0], atol=1e-12)
    A = np.column_stack([a, 1e6 * a])
    np.testing.assert_allclose(least_squares(A, 6 * a), [3.0, 3e-6])
    wide = least_squares(np.array([[1.0, 2.0, 4.0]]), np.array([6.0]))
    np.testing.assert_allclose(wide, [2.0, 1.0, 0.5])


def test_least_squares_of_columns_that_differ_in_size():
    rng = np.random.default_rng(1)
    A, size = rng.normal(size=(30, 3)), np.array([1e-20, 1.0, 1e20])
    W = np.array([2.0, -1.0, 0.5])
    np.testing.assert_allclose(least_squares(A * size, A @ W), W / size, rtol=1e-9)
    kept = A * size
    before = kept.copy()
    least_squares(kept, A @ W)
    np.testing.assert_array_equal(kept, before)


# --- rounding -------------------------------------------------------------------------------------------------


@given(st.floats(-6, 6))
def test_rounded_is_the_nearest_point_and_the_outer_where_two_are(W):
    k = float(rounded(np.array([W]))[0])
    distance = np.abs(POINTS - W)
    nearest_points = POINTS[distance <= distance.min()]
    assert abs(k) == np.abs(nearest_points).max()
    assert k * W >= 0


@pytest.mark.parametrize(
    ("W", "k"),
    [(0.25, 0.5), (-0.25, -0.5), (-0.75, -1), (0.74, 0.5), (0.75, 1), (4.2, 4), (7, 4), (-99, -4), (np.inf, 4)],
)  # fmt: skip
def test_rounded(W, k):
    found = rounded(np.array([W, W], dtype=float))
    assert found.tolist() == [k, k]
