"""Learning a law from a table: train units side by side, choose one, read its formula, say how far to trust it.

Rows that training does not use decide. Where there are 20 or more, a fifth is held out; below that each row is
left out once, and the formula that was learned without it is held against it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import doctor, race
from .backend import SPLIT, Streams, from_numpy, to_numpy
from .errors import OptionError, TableError, printable
from .judge import GOOD, Rows, is_exact, missed_rows, rival, rms, robust_spread
from .lattice import POINTS, rounded
from .layer import Layer, chain, replica
from .optim import Adam
from .readout import EXACT, Formula, Host, complexity, constant, formula, leaves, relative_error
from .tasks.tables import Table
from .train import Result, Segment, fit
from .units import NAC, NALU, LogNAC

#: Units trained by gradients; the paths of the race are brought to their lowest loss at once.
TRAINED: dict[str, type[Layer]] = {"nalu": NALU, "nac": NAC, "lognac": LogNAC}

#: What `Plan.unit` may be.
UNITS: tuple[str, ...] = ("auto", *race.PATHS, *TRAINED)

#: Below this number of rows none is held out: each is left out once instead.
FEW_ROWS = 20

#: A gate this far from its branch takes part in the other path.
DRIFT = 0.1

#: A weight this far from what it is rounded to is not settled.
UNSETTLED = 0.1


@dataclass(frozen=True)
class Plan:
    """How to learn.

    Attributes
    ----------
    unit
        "auto" lets a sum path and a product path race; "sum" and "product" are one of them; "nalu", "nac" and
        "lognac" are the units of the paper.
    scale
        Learn one constant besides, which multiplies the whole; for the paths.
    compare
        Units of the paper to train beside, for the report; they are not chosen from.
    seeds, seed
        Replicas, and the seed of the run.
    layers, steps, lr, batch, dtype
        Of units trained by gradients: how many one after the other, and how they are trained.
    """

    unit: str = "auto"
    scale: bool = False
    compare: tuple[str, ...] = ()
    seeds: int = 64
    seed: int = 0
    layers: int = 1
    steps: int = 20_000
    lr: float = 1e-2
    batch: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.unit not in UNITS:
            raise OptionError(f"fit: unit must be one of {', '.join(UNITS)}, got {self.unit!r:.60}")
        for unit in self.compare:
            if unit not in TRAINED:
                raise OptionError(
                    f"fit: what it is compared with is one of {', '.join(TRAINED)}, got {unit!r:.60}"
                )
        if self.unit in TRAINED and self.scale:
            raise OptionError(f"fit: {self.unit} has no constant; choose auto, sum or product, or leave scale out")
        if self.unit not in TRAINED and self.layers > 1:
            raise OptionError(f"fit: {self.unit} has one layer; choose nalu, nac or lognac for more")

    @property
    def candidates(self) -> tuple[str, ...]:
        """The units among which one is chosen."""
        return tuple(race.PATHS) if self.unit == "auto" else (self.unit,)

    def model(self, unit: str, features: int) -> Layer:
        """Units one after the other; hidden layers have two outputs, as in the paper."""
        sizes = [features, *[2] * (self.layers - 1), 1]
        units = [TRAINED[unit](i, o) for i, o in itertools.pairwise(sizes)]
        return units[0] if len(units) == 1 else chain(*units)


@dataclass(frozen=True)
class Candidate:
    """One unit, trained, and what it makes of the rows that training has not used.

    Attributes
    ----------
    unit
        Its name in a plan.
    layer, params
        The network that was chosen among its replicas.
    seeds
        The parameters of all S replicas.
    formula : Formula
        The network's, also where it does not hold.
    held_out : Rows
        Rows that training has not used, or each row when it was left out.
    agree : float
        Share of all replicas, diverged ones included, whose formula is the same expression.
    diverged : int
        Replicas that diverged.
    usable : bool
        Whether any replica learned anything.
    elsewhere : bool
        Whether the rows clearly prefer weights that are no multiples of 1/2; known of paths only.
    left_out : int
        Rows that the product path could not learn from, because the target or a factor is 0.
    holds : bool
        Whether the formula is good to `GOOD`, or off by what looks like noise, on rows not trained on.
    odd : array of bool or None
        (N): rows of the table that are not like the others, and are left out of that judgement.
    like : Rows or None
        Of the rows that training has not used, those that are like the others.
    """

    unit: str
    layer: Layer
    params: dict[str, Any]
    seeds: dict[str, Any]
    formula: Formula
    held_out: Rows
    agree: float
    diverged: int = 0
    usable: bool = True
    elsewhere: bool = False
    left_out: int = 0
    holds: bool = False
    odd: NDArray[np.bool_] | None = None
    like: Rows | None = None


@dataclass(frozen=True)
class Learned:
    """What was learned, and what is known about it.

    Attributes
    ----------
    target, features, plan
        What was asked.
    chosen : Candidate
        The unit that was taken.
    candidates : tuple of Candidate
        All that were trained, those only compared last.
    layer, params
        The network that was chosen: one replica.
    unsnapped : str
        What it computes, its weights to three decimals and its gates resolved.
    formula : Formula or None
        Its formula, where it holds well enough to be shown.
    snapped : str
        The same as text, also where it does not hold.
    exact : bool
        Whether the formula is the law: gates resolved, and on rows not used for training an RMS error of at most
        1e-6 of the target's standard deviation; and every row known agrees, none of the formulas that
        `judge.rival` tries fits them as well, no column is in it that others determine, and it was learned
        from more rows than there are columns.
    errors : tuple of float
        Of the snapped formula on the rows held out and those of the test, relative to the standard deviation of
        the table's target, or of these rows' if that is larger.
    trained, held_out, test : Rows
        Rows trained on, rows used to choose (held out, or left out one at a time), and the test's, if any.
    left_one_out : bool
        Whether rows were left out one at a time.
    spread : float
        Standard deviation of the target.
    branch : array
        The side, 0 or 1, on which each gate of the network is in the rows trained on.
    warnings : tuple of str
        What a reader should know before trusting any of it.
    seconds : float
        Wall time.
    """

    target: str
    features: tuple[str, ...]
    plan: Plan
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    unsnapped: str
    formula: Formula | None
    exact: bool
    errors: tuple[float, ...]
    trained: Rows
    held_out: Rows
    test: Rows | None
    left_one_out: bool
    spread: float
    branch: Host
    warnings: tuple[str, ...]
    seconds: float

    @property
    def layer(self) -> Layer:
        """The chosen network."""
        return self.chosen.layer

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters."""
        return self.chosen.params

    @property
    def snapped(self) -> str:
        """Its formula as text, also where it does not hold."""
        return str(self.chosen.formula)

    @property
    def why(self) -> str:
        """Why this unit was chosen."""
        held = [candidate.unit for candidate in self.candidates if candidate.holds]
        name = f"the {self.chosen.unit} path"
        if len(self.plan.candidates) == 1:
            return "it was asked for"
        if not self.chosen.holds:
            return f"{name} was taken: no formula holds, and its network is the nearest"
        if len(set(held) & set(self.plan.candidates)) == 1:
            return f"{name} was taken: of the two paths, only its formula holds"
        return f"{name} was taken: both formulas hold, and its is the better, or of two as good the simpler"

    @property
    def unused(self) -> list[Rows]:
        """The rows that training has not used."""
        return [self.held_out] if self.test is None else [self.held_out, self.test]

    def outside(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows lie beyond the range of the rows that it was learned from, in any feature."""
        return _outside(np.concatenate([self.trained.x, self.held_out.x]), rows.x)


def learn(
    table: Table,
    target: str,
    features: Sequence[str] | None = None,
    test: Table | None = None,
    *,
    plan: Plan | None = None,
    progress: Callable[[Segment], object] | None = None,
) -> Learned:
    """Learn a law from a table.

    Parameters
    ----------
    table : Table
        Two rows or more.
    target : str
        The column to predict.
    features : sequence of str, optional
        The columns to predict it from; all others with numbers if left out.
    test : Table, optional
        Rows for the report, best from outside the range of the table.
    plan : Plan, optional
        How to learn.
    progress : callable, optional
        Called with a `Segment` now and then, while units are trained by gradients.

    Returns
    -------
    Learned

    Raises
    ------
    TableError
        If a column is missing, or the table cannot be learned from.

    Examples
    --------
    >>> import numpy as np
    >>> from nalu_np.learn import learn
    >>> from nalu_np.tasks.tables import Table
    >>> x = np.random.default_rng(0).uniform(1, 2, (100, 2))
    >>> values = np.column_stack([x, x[:, 0] * x[:, 1]])
    >>> table = Table("made.csv", ("a", "b", "y"), values, (), tuple(range(100)), ("",) * 100)
    >>> learned = learn(table, "y")
    >>> print(learned.chosen.unit, learned.formula, learned.exact)
    product a * b True
    """
    started = time.perf_counter()
    plan = plan or Plan()
    names = _features(table, target, features)
    trained_units = [*plan.candidates, *plan.compare]
    _check_magnitudes(table, [*names, target], plan.dtype if set(trained_units) & TRAINED.keys() else "float64")
    x, y = table.columns(names), table.columns([target])[:, 0]
    if len(x) < 2:
        raise TableError(f"{table.path}: one row teaches nothing; give two or more, better twenty or more")

    split = _split(plan, len(x))
    candidates = [
        candidate
        for unit in dict.fromkeys(trained_units)
        if (candidate := _candidate(unit, plan, names, x, y, split, progress)) is not None
    ]
    pool = [candidate for candidate in candidates if candidate.unit in plan.candidates]
    if not pool:
        raise TableError(f"{table.path}: in every row the target or a factor is 0, and no product can be learned")
    chosen = _choose(pool, float(np.std(y)))
    model, params, found = chosen.layer, chosen.params, chosen.formula

    def rows(name: str, labels: tuple[str, ...], x: Host, y: Host) -> Rows:
        return Rows(name, labels, x, y, predict(model, params, x), found(x)[:, 0])

    known = rows("the table", table.labels, x, y)
    held_out = replace(chosen.held_out, labels=known.pick("", split.held_out).labels)
    tested = None
    if test is not None:
        tested = rows("the test rows", test.labels, test.columns(names), test.columns([target])[:, 0])

    unused = [held_out] if tested is None else [held_out, tested]
    spread = float(np.std(y))
    errors = tuple(part.error(part.formula, spread) for part in [chosen.like or held_out, *unused[1:]])
    holds = chosen.holds and (tested is None or errors[-1] <= GOOD or not tested.formula_is_worse())
    # Rows trained on count too: what was held against a row left out may be another formula than the one shown.
    fits = spread > 0 and max(errors) <= EXACT and all(is_exact(r.formula, r.y, known.y) for r in [known, *unused])
    other = rival(found, x, y) if holds and spread > 0 and known.error(known.formula, spread) <= GOOD else None
    related = doctor.relations(x, names)
    untold = _untold(found, related)
    enough = int(split.trained.sum()) - chosen.left_out > len(names)
    learned = Learned(
        target=target,
        features=tuple(names),
        plan=plan,
        chosen=chosen,
        candidates=tuple(candidates),
        unsnapped=str(formula(model, params, x, names=names, snap=False)),
        formula=found if holds else None,
        exact=holds and found.resolved and fits and other is None and not untold and enough,
        errors=errors,
        trained=known.pick("rows trained on", split.trained),
        held_out=held_out,
        test=tested,
        left_one_out=split.left_one_out,
        spread=spread,
        branch=gates(model, params, x).mean(axis=0).round(),
        warnings=(),
        seconds=time.perf_counter() - started,
    )
    warnings = _warnings(learned, other, related, untold, known)
    return replace(learned, warnings=tuple(warnings), seconds=time.perf_counter() - started)


def predict(layer: Layer, params: Mapping[str, Any], x: Host) -> Host:
    """What one replica computes for rows x (N, I), in float64: (N)."""
    double = {name: from_numpy(to_numpy(value), "float64") for name, value in params.items()}
    with np.errstate(all="ignore"):
        return to_numpy(layer(double, from_numpy(x, "float64"))[0])[:, 0]


# --- the table --------------------------------------------------------------------------------------------------


def _features(table: Table, target: str, features: Sequence[str] | None) -> list[str]:
    table.columns([target])
    names = [name for name in table.names if name != target] if features is None else list(features)
    if not names:
        raise TableError(f"{table.path}: there is no column of numbers besides {printable(target)!r}")
    if target in names or len(set(names)) < len(names):
        raise TableError(f"{table.path}: the features must differ from each other and from the target")
    table.columns(names)
    return names


def _check_magnitudes(table: Table, names: Sequence[str], dtype: str) -> None:
    # Squares of gradients, which are products of errors and inputs: fourth powers must not overflow, nor vanish.
    limits = np.finfo(dtype)
    most, least = float(limits.max) ** 0.25, float(limits.tiny) ** 0.25
    values = np.abs(table.columns(names))
    largest = values.max(axis=0)
    if largest.max() > most:
        row, column = divmod(int(values.argmax()), len(names))
        where = (
            f"line {table.lines[row]}, column '{printable(names[column])}': {values[row, column]:.3g} is too large"
        )
        limit = f"at most {most:.0e}"
    elif ((largest > 0) & (largest < least)).any():
        column = int(((largest > 0) & (largest < least)).argmax())
        where = f"column '{printable(names[column])}': {largest[column]:.3g}, its largest number, is too small"
        limit = f"at least {least:.0e}"
    else:
        return
    cure = "rescale the column" + (", or choose --dtype float64" if dtype == "float32" else "")
    raise TableError(f"{printable(table.path, None)}: {where} to train in {dtype} ({limit}); {cure}")


# --- training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Split:
    """Which rows train, and which decide; where rows are left out one at a time, each does both."""

    trained: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    left_one_out: bool


def _split(plan: Plan, n: int) -> _Split:
    """A fifth of the rows decides, or each row once."""
    if n < FEW_ROWS:
        every = np.ones(n, np.bool_)
        return _Split(every, every, True)
    order = Streams(plan.seed, None, SPLIT).generators[0].permutation(n)
    held_out = np.isin(np.arange(n), order[: n // 5])
    return _Split(~held_out, held_out, False)


def _candidate(
    unit: str, plan: Plan, names: list[str], x: Host, y: Host, split: _Split, progress: Any
) -> Candidate | None:
    """One unit trained and tried; None for a path that no row can teach anything."""
    if unit in race.PATHS:
        found = _raced(unit, plan, names, x, y, split)
    else:
        learn_by = _leave_one_out if split.left_one_out else _hold_out
        found = learn_by(unit, plan, names, x, y[:, None], split, progress)
    return found and _judged(found, x, y, split)


def _judged(candidate: Candidate, x: Host, y: Host, split: _Split) -> Candidate:
    """The candidate with what can be said of its formula: rows that are not like the others, whether it holds."""
    found, spread = candidate.formula, float(np.std(y))
    residual = _residual(found, x, y)
    odd = doctor.odd(residual, 1e-9 * spread) if not split.left_one_out else np.zeros(len(y), np.bool_)
    like = candidate.held_out.pick(candidate.held_out.name, ~odd[split.held_out])
    error = like.error(like.formula, spread)
    # Logarithms of noise have a mean of their own: free weights must be better in the target's terms too.
    better = rms(like.network - like.y) < 0.98 * rms(like.formula - like.y)
    candidate = replace(candidate, elsewhere=candidate.elsewhere and better)
    holds = candidate.usable and any(map(leaves, found.terms)) and len(like.y) > 0
    # The standard deviation of a few huge targets makes small what is wrong with all others.
    typical = float(np.median(np.abs(like.formula - like.y))) / (robust_spread(y) or math.inf)
    if holds and not (error <= GOOD and typical <= 10 * GOOD):
        luck = candidate.unit in race.PATHS and candidate.agree < 0.5  # other rows would have said something else
        holds = error < 1 and not (luck or candidate.elsewhere or like.formula_is_worse())
        holds = holds and not _curved(found, x[~odd], y[~odd])
    return replace(candidate, holds=holds, odd=odd, like=like)


def _residual(found: Formula, x: Host, y: Host) -> Host:
    """What a formula leaves over, in the domain in which it is less of a function of the prediction.

    Noise may be absolute, or relative to the target.
    """
    with np.errstate(all="ignore"):
        prediction = found(x)[:, 0]
        ratio, error = np.log(y / prediction), y - prediction
    if np.isfinite(ratio).all() and _grows(ratio, prediction) < _grows(error, prediction):
        return np.asarray(ratio)
    return np.asarray(error)


def _grows(residual: Host, prediction: Host) -> float:
    """Rank correlation of the sizes of residuals and predictions."""
    if len(residual) < 2:
        return 0.0
    ranks = [np.abs(v).argsort(kind="stable").argsort(kind="stable") for v in (residual, prediction)]
    return abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))


def _curved(found: Formula, x: Host, y: Host) -> bool:
    """Whether what a formula leaves over depends on the columns, or is a matter of signs."""
    spread = float(np.std(y))
    prediction = found(x)[:, 0]
    error = relative_error(prediction, y, spread)
    if error <= EXACT:  # rounding has patterns of its own
        return False
    return _wrong_signs(found, x, y) or doctor.misfit(x, _residual(found, x, y))


def _wrong_signs(found: Formula, x: Host, y: Host) -> bool:
    """Whether the magnitudes of the target are those of the formula, and its signs are not."""
    prediction, spread = found(x)[:, 0], float(np.std(y))
    magnitude = relative_error(np.abs(prediction), np.abs(y), spread)
    return magnitude < relative_error(prediction, y, spread) / 5


def _choose(candidates: Sequence[Candidate], spread: float) -> Candidate:
    """The simplest of those whose formulas hold about as well as the best; without any, the best network."""

    def error(candidate: Candidate, formula: bool) -> float:
        rows = candidate.like or candidate.held_out
        found = rows.error(rows.formula if formula else rows.network, spread)
        return found if math.isfinite(found) else math.inf

    holding = [c for c in candidates if c.holds]
    if not holding:
        return min(candidates, key=lambda c: error(c, False))
    enough = max(EXACT, 1.1 * min(error(c, True) for c in holding))
    return min((c for c in holding if error(c, True) <= enough), key=lambda c: complexity(c.formula.terms[0]))


def _raced(kind: str, plan: Plan, names: list[str], x: Host, y: Host, split: _Split) -> Candidate | None:
    """A path of the race."""
    path = race.run(
        kind, x[split.trained], y[split.trained], names, scale=plan.scale, seeds=plan.seeds, seed=plan.seed
    )
    if path is None:
        return None
    params = replica(path.params, 0)
    if split.left_one_out:
        network, snapped = np.full((2, len(x)), np.nan)
        for i in range(len(x)):
            others = np.arange(len(x)) != i
            without = race.run(kind, x[others], y[others], names, scale=plan.scale)
            if without is not None:
                network[i] = predict(without.layer, replica(without.params, 0), x[i : i + 1])[0]
                snapped[i] = without.formula(x[i : i + 1])[0, 0]
    else:
        network = predict(path.layer, params, x[split.held_out])
        snapped = path.formula(x[split.held_out])[:, 0]
    return Candidate(
        unit=kind,
        layer=path.layer,
        params=params,
        seeds=path.params,
        formula=path.formula,
        held_out=_held(x[split.held_out], y[split.held_out], network, snapped),
        agree=float(path.agree.mean()),
        elsewhere=path.elsewhere,
        left_out=path.left_out,
    )


def _held(x: Host, y: Host, network: Host, snapped: Host) -> Rows:
    return Rows("rows not trained on", ("",) * len(x), x, y, network, snapped)


def _hold_out(
    unit: str, plan: Plan, names: list[str], x: Host, y: Host, split: _Split, progress: Any
) -> Candidate:
    """A unit trained by gradients; the rows held out choose the seed."""
    model, held = plan.model(unit, len(names)), split.held_out
    result = _train(model, plan, x[split.trained], y[split.trained], progress, validation=(x[held], y[held]))
    found = _formulas(model, result, names, x)
    network = predict(model, replica(result.best_params, result.best), x[held])
    held_out = _held(x[held], y[held, 0], network, found[result.best](x[held])[:, 0])
    return _trained(unit, model, result, found, result.best, held_out)


def _leave_one_out(
    unit: str, plan: Plan, names: list[str], x: Host, y: Host, split: _Split, progress: Any
) -> Candidate:
    """Each seed is trained on all rows, and once without each row; its formulas without choose."""
    model = plan.model(unit, len(names))
    n, seeds = len(x), plan.seeds
    result = _train(model, plan, x, y, progress)
    others = np.array([np.delete(np.arange(n), i) for i in range(n)]).repeat(seeds, axis=0)
    folds = _train(model, plan, x[others], y[others], progress, replicas=list(range(seeds)) * n)
    network, snapped = np.full((2, n, seeds), np.nan)
    for i in range(n):
        for s in range(seeds):
            params = replica(folds.best_params, i * seeds + s)
            if not folds.diverged[i * seeds + s]:
                network[i, s] = predict(model, params, x[i : i + 1])[0]
                snapped[i, s] = formula(model, params, np.delete(x, i, axis=0), names=names)(x[i : i + 1])[0, 0]
    found = _formulas(model, result, names, x)
    with np.errstate(all="ignore"):
        whole = np.stack([f(x)[:, 0] for f in found], axis=1)
        losses = np.mean((snapped - y) ** 2 + (whole - y) ** 2, axis=0)
    losses[~np.isfinite(losses) | result.diverged] = np.inf
    # This chooses the formula. Of the seeds that found it, the best fit becomes the network.
    texts = np.array([str(f) for f in found])
    first = int(losses.argmin())
    best = int(np.where(texts == texts[first], _lowest(result.history["loss"]), np.inf).argmin())
    held_out = _held(x, y[:, 0], network[:, best], snapped[:, first])
    return _trained(unit, model, result, found, best, held_out)


def _trained(
    unit: str, model: Layer, result: Result, found: Sequence[Formula], best: int, held_out: Rows
) -> Candidate:
    agree = (np.array([str(f) for f in found]) == str(found[best])) & ~result.diverged
    return Candidate(
        unit=unit,
        layer=model,
        params=replica(result.best_params, best),
        seeds=result.best_params,
        formula=found[best],
        held_out=held_out,
        agree=float(agree.mean()),
        diverged=int(result.diverged.sum()),
        usable=bool(np.isfinite(result.history["loss"]).any()),
    )


def _train(model: Layer, plan: Plan, x: Host, y: Host, progress: Any, **more: Any) -> Result:
    rows = x.shape[-2]
    batch = min(plan.batch or 128, rows)
    options = {
        "optimizer": Adam(lr=plan.lr),
        "steps": plan.steps,
        "batch": None if batch == rows else batch,
        "block": max(1, min(32, 4096 // x.shape[-1])),  # of a table of 1,000 columns, not a gigabyte at once
        "replicas": plan.seeds,
        "seed": plan.seed,
        "dtype": plan.dtype,
        "callback": progress,
    }
    return fit(model, x, y, **{**options, **more})


def _formulas(model: Layer, result: Result, names: list[str], x: Host) -> list[Formula]:
    """The snapped formula of each seed."""
    seeds = range(len(result.diverged))
    return [formula(model, replica(result.best_params, s), x, names=names) for s in seeds]


def _lowest(losses: Host) -> Host:
    """Lowest loss of each seed over the segments (K, S); infinite where there is none."""
    return np.asarray(np.where(np.isnan(losses), np.inf, losses).min(axis=0))


# --- judging ----------------------------------------------------------------------------------------------------


def _warnings(
    learned: Learned, other: Formula | None, related: Sequence[doctor.Relation], untold: list[str], known: Rows
) -> Iterator[str]:
    chosen, found, plan = learned.chosen, learned.chosen.formula, learned.plan
    text = printable(str(found), 200)
    if not chosen.usable:
        yield "every seed diverged at once, and the network is as good as untrained: lower --lr or rescale columns"
        return
    test = learned.test
    inside = None if test is None else ~learned.outside(test)
    bounded = () if plan.scale else plan.candidates
    yield from doctor.before(known.x, known.y, related, inside, bounded)
    if learned.spread == 0:
        yield "the target is constant: many formulas give it, and none can be called the law"
    if untold:
        yield f"the part of {_list(untold)} in the formula is therefore a guess: it is not called exact"
    if other is not None:
        ours, theirs = (rms(f(known.x)[:, 0] - known.y) for f in (found, other))
        if theirs < ours / 2 and max(learned.errors) > EXACT:
            longer = ": train longer (--steps)" if chosen.unit in TRAINED else ""
            yield f"{printable(str(other), 200)} fits these rows better than {text}{longer}"
        else:
            yield f"these rows cannot tell {text} from {printable(str(other), 200)}, which fits them as well"
    yield from _misses(learned, known)
    hanging = int(off_branch(gates(learned.layer, learned.params, learned.trained.x), learned.branch).sum())
    if not found.resolved:
        yield "the chosen network's gate is undecided: it adds in some rows and multiplies in others"
    elif hanging:
        yield f"the chosen network's gate has not settled: rows trained on in which it mixes both paths: {hanging}"
    if test is not None:
        drifted = test.pick("", off_branch(gates(learned.layer, learned.params, test.x), learned.branch)).labels
        if drifted:
            yield (
                f"the network's gate drifts from its choice in {len(drifted)} of the test rows "
                f"({_list(drifted)}): there it mixes in its other path, and its predictions are not to be "
                f"trusted; the formula has no gate"
            )
    unsettled = _unsettled(learned)
    if unsettled and learned.formula is not None:
        yield f"weights far from what they are rounded to, by more than {UNSETTLED}: {_list(unsettled)}"
    if chosen.diverged:
        yield f"{chosen.diverged} of {plan.seeds} seeds diverged"
    if chosen.agree < 0.5 and learned.formula is not None and not untold:
        yield f"only {chosen.agree:.0%} of the seeds agree on {text}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:4])) + (" ..." if len(names) > 4 else "")


def _misses(learned: Learned, known: Rows) -> Iterator[str]:
    """What the formula does not say about rows that are known, and why."""
    chosen, found = learned.chosen, learned.chosen.formula
    text = printable(str(found), 200)
    for rows in learned.unused:
        undefined = int((~np.isfinite(rows.formula)).sum())
        if undefined:
            yield (
                f"{text} has no finite value for {undefined} of {rows.name}: a root or a quotient of 0 or a "
                f"negative number, or too large a result"
            )
    odd = np.zeros(len(known.y), np.bool_) if chosen.odd is None or not chosen.holds else chosen.odd
    for i in np.flatnonzero(odd)[:3]:
        yield (
            f"{printable(known.labels[i])} is not like the others: {printable(learned.target)} is "
            f"{known.y[i]:.6g}, and {text} is {known.formula[i]:.6g}; check it"
        )
    if odd.sum() > 3:
        yield f"and {odd.sum() - 3:,} more of {len(odd):,} rows are not like the others"
    like = known.pick(known.name, ~odd)
    if max(learned.errors) <= EXACT:
        for rows in [like, *learned.unused[1:]]:
            missed = int(missed_rows(rows.formula, rows.y, known.y).sum())
            if missed:  # the RMS error does not show it
                yield f"{text} is off by more than rounding in {missed:,} of {len(rows.y):,} rows of {rows.name}"
        return
    if learned.spread == 0:
        return
    noisy = chosen.holds and not chosen.elsewhere and not _curved(found, like.x, like.y)
    if not noisy:
        option = _advice(learned, like)
        if option is not None:
            yield f"these rows say more than {text}: {option}"
            return
    for rows, off in zip(learned.unused, learned.errors, strict=True):
        if off > GOOD and np.isfinite(rows.formula).all():
            network = rows.error(rows.network, learned.spread)
            size = f"by {off:.2g} times the target's standard deviation" if np.isfinite(off) else "beyond measure"
            beside = f"the network by {network:.2g}" if np.isfinite(network) else "and so does the network"
            changed = rows is not learned.held_out and learned.errors[0] < off / 5
            why = ": the law is another one there" if changed else ""
            yield f"{text} misses {rows.name} {size}, {beside}{why}"
    if not noisy:
        yield _what_else(learned, like)
    elif len(known.y) < race.ENOUGH:
        yield f"{len(known.y)} rows are too few to tell whether what {text} leaves over is noise"
    elif not odd.any():
        yield f"what {text} leaves over looks like noise, or is too small a part of the law to be told from it"


def _advice(learned: Learned, known: Rows) -> doctor.Advice | None:
    """A formula beyond what was asked for that does hold."""
    plan = learned.plan
    options = doctor.advice(
        known.x, known.y, learned.features, learned.errors[0], units=plan.candidates, scale=plan.scale
    )
    fitting = (one for one in options if not _curved(one.formula, known.x, known.y - one.offset))
    return next(fitting, None)


def _what_else(learned: Learned, known: Rows) -> str:
    """What may be the matter where a formula leaves over more than noise."""
    chosen, error = learned.chosen, learned.errors[0]
    text = printable(learned.snapped, 200)
    free = printable(learned.unsnapped, 200)
    if _wrong_signs(chosen.formula, known.x, known.y):
        return (
            f"{text} has the magnitude of these rows and not their signs: a product has the sign of its odd powers"
        )
    if chosen.elsewhere and known.error(known.network, learned.spread) <= max(GOOD, error / 5) and free != text:
        beyond = np.abs(to_numpy(learned.params["W"])).max() > POINTS.max() + 0.25
        why = f"beyond {POINTS.max():.0f}" if beyond else "no multiples of 1/2"
        return f"these rows clearly prefer {free}: its constants are {why}, and no formula here has such"
    if error > GOOD:
        kinds = dict.fromkeys(kind for unit in learned.plan.candidates for kind in SAYS[unit])
        return (
            f"{' and '.join(f'no {kind}' for kind in kinds)} of these columns says what these rows say: the "
            f"law may take two steps, as (a + b) * c does, or a function that no unit has, as a sine, or a column "
            f"that is missing; or the data are noise"
        )
    return f"what {text} leaves over is no noise but depends on the columns: the law has more to it"


#: What the units can say.
SAYS = {
    "sum": ("sum",),
    "product": ("product",),
    "nalu": ("sum", "product"),
    "nac": ("sum",),
    "lognac": ("product",),
}


def _untold(found: Formula, related: Sequence[doctor.Relation]) -> list[str]:
    """Columns in the formula that others determine, in the terms of the formula: their part is a guess."""
    term = constant(found.terms[0])[1]
    kind: str | None = "sum"
    if isinstance(term, tuple):
        parts = [part for _, part in term[1]] if term[0] != "abs" else [term]
        flat = all(isinstance(part[1] if part[0] == "abs" else part, str) for part in parts)
        kind = None if not flat else "product" if term[0] == "abs" else term[0]
    return doctor.guessed(leaves(term), related, kind)


def _unsettled(learned: Learned) -> list[str]:
    """Columns whose weights in the chosen path, or its only layer, are far from what they are rounded to."""
    if learned.plan.layers > 1 or not learned.chosen.formula.resolved:
        return []
    double = {name: from_numpy(to_numpy(value), "float64") for name, value in learned.params.items()}
    with np.errstate(all="ignore"):
        W = to_numpy(learned.layer.values(double, from_numpy(learned.trained.x, "float64"))["W"])[:, 0]
    off = np.abs(W - rounded(W)) > UNSETTLED
    return [name for name, far in zip(learned.features, off, strict=True) if far]


def _outside(known: Host, x: Host) -> NDArray[np.bool_]:
    return np.asarray(np.any((x < known.min(axis=0)) | (x > known.max(axis=0)), axis=1))


def gates(layer: Layer, params: Mapping[str, Any], x: Host) -> Host:
    """Every gate of one replica for rows x (N, I), in float64: (N, gates); no columns where there is none."""
    double = {name: from_numpy(to_numpy(value), "float64") for name, value in params.items()}
    with np.errstate(all="ignore"):
        values = layer.values(double, from_numpy(x, "float64"))
    found = [np.broadcast_to(to_numpy(g), (len(x), g.shape[-1])) for n, g in values.items() if n.endswith("g")]
    return np.concatenate([np.zeros((len(x), 0)), *found], axis=1)


def off_branch(g: Host, branch: Host) -> NDArray[np.bool_]:
    """In which rows a gate, (N, gates), is off the branch that it takes in training, (gates)."""
    return np.asarray((np.abs(g - branch) > DRIFT).any(axis=1))
