"""The formulas in the docstrings are proven, are what the code computes, and are what the pages show."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np import vjps

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))

import formulas as f  # noqa: E402
import write  # noqa: E402

SYSTEMS = list(f.systems().values())
PAGES = {str(path.relative_to(DOCS.parent)): path for path in write.pages()}


def system(where, *lines):
    """A docstring's equations, as they would be read."""
    made = f.System(where)
    for line in lines:
        text, tag = f.LINE.findall(line)[0]
        side = made.adjoint if tag.endswith("*") else made.forward
        side += [(tag, equation) for equation in f.equations(text)]
    return made


@pytest.mark.parametrize("stated", [s for s in SYSTEMS if s.adjoint], ids=lambda s: s.where)
def test_every_adjoint_is_what_sympy_derives(stated):
    assert f.refuted(stated) == []


def test_there_is_something_to_prove():
    assert sum(len(s.adjoint) for s in SYSTEMS) >= 80
    assert {s.where for s in SYSTEMS if s.adjoint} >= {"vjps.py: log_product", "units/nalu.py: NALU.forward"}
    assert set(f.BETWEEN) < {s.where.split(": ")[1] for s in SYSTEMS}


@pytest.mark.parametrize("stated", f.compared(), ids=lambda s: s.where)
def test_the_code_computes_the_formulas(stated):
    for seed in range(5):
        point = f.point(stated, np.random.default_rng(seed), {"b": 3, "i": 2, "o": 4, "j": 3, "k": 3, "q": 3})
        formula, library = f.by_formula(stated, point), f.by_library(stated, point)
        assert len(library) >= 2
        for name, value in library.items():
            np.testing.assert_allclose(value, formula[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_the_sign_of_a_product_is_its_formula():
    (stated,) = [s for s in SYSTEMS if s.where == "vjps.py: parity"]
    rng = np.random.default_rng(0)
    point = {"x": rng.normal(size=(50, 3)), "W": rng.uniform(-4, 4, (3, 2))}
    assert np.array_equal(f.by_formula(stated, point)["s"], vjps.parity(**point))


@pytest.mark.parametrize(
    "optimizer",
    [nn.SGD(lr=0.5), nn.Adam(lr=0.5, betas=(0.8, 0.9), eps=0.1), nn.RMSprop(lr=0.5, eps=0.1)],
    ids=repr,
)
def test_optimisers_compute_their_formulas(optimizer):
    name = type(optimizer).__name__
    (stated,) = [s for s in SYSTEMS if s.where == f"optim.py: {name}"]
    options = {**vars(optimizer)}
    if name == "Adam":
        options["b1"], options["b2"] = options.pop("betas")
    state = optimizer.init(np.zeros((1, 4)))
    moments = ["m", "v"][-len(state) :] if state else []
    for step in range(1, 4):
        g = np.random.default_rng(step).normal(size=(1, 4))
        before = {n: q[0] for n, q in zip(moments, state, strict=True)}
        delta, state = optimizer.update(g, state, step)
        formula = f.by_formula(stated, {**options, **before, "g": g[0], "t": step})
        np.testing.assert_allclose(delta[0], formula["delta"], rtol=1e-13)
        for n, q in zip(moments, state, strict=True):
            np.testing.assert_allclose(q[0], formula[f"{n}_new"], rtol=1e-13)


def test_every_tag_in_the_code_is_stated_once_and_every_stated_one_is_used():
    used = set().union(*f.used().values())
    stated = f.stated()
    assert used == set(stated)
    assert all(f.code(tag) for tag in stated)
    assert len(stated) >= 60


def test_every_tag_has_its_place_on_a_derivation_page():
    shown = {
        tag
        for path in (DOCS / "derivations").glob("*.md")
        for tag in write.re.findall(r'<a id="([a-z]+\.\d\*?)"></a>', path.read_text(encoding="utf-8"))
    }
    assert shown == set(f.stated())


# --- what must be caught --------------------------------------------------------------------------------------

GOOD = (
    "r_bi = abs(x_bi) + eps,  l_bi = log(r_bi)  [product.1]",
    "m_bo = exp(sum_i(l_bi * W_io))  [product.2]",
    "dW_io = sum_b(l_bi * dm_bo * m_bo)  [product.2*]",
    "dx_bi = sum_o(dm_bo * m_bo * W_io) * sign(x_bi) / r_bi  [product.3*]",
)


def test_a_right_formula_passes():
    assert f.refuted(system("here", *GOOD)) == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (3, "dx_bi = -sum_o(dm_bo * m_bo * W_io) * sign(x_bi) / r_bi  [product.3*]"),
        (3, "dx_bi = sum_o(dm_bo * m_bo * W_io) / r_bi  [product.3*]"),
        (3, "dx_bi = sum_o(dm_bo * m_bo * W_io) * sign(x_bi) / abs(x_bi)  [product.3*]"),
        (2, "dW_io = sum_b(x_bi * dm_bo * m_bo)  [product.2*]"),
        (2, "dW_io = l_bi * dm_bo * m_bo  [product.2*]"),
        (1, "m_bo = 1 - exp(sum_i(l_bi * W_io))  [product.2]"),
        (0, "r_bi = abs(x_bi) + 2 * eps,  l_bi = log(r_bi) * 2  [product.1]"),
    ],
)
def test_a_wrong_formula_is_refuted(line, wrong):
    lines = list(GOOD)
    lines[line] = wrong
    if "l_bi * dm_bo * m_bo  [" in wrong:  # an index that is left over
        with pytest.raises(ValueError, match="squeeze"):
            f.refuted(system("here", *lines))
    else:
        problems = f.refuted(system("here", *lines))
        assert problems
        assert "differs from SymPy's derivative by" in problems[0]


def test_a_part_that_belongs_to_no_gradient_is_refuted():
    lost = system("here", "a_bo = sum_i(x_bi * W_io)  [a.1]", "dW_a_io = sum_b(x_bi * da_bo)  [a.1*]")
    assert f.refuted(lost) == ["here: dW_a is neither a gradient of a value nor a part of one"]


@pytest.mark.parametrize("text", ["a_bo = sum_i(x_bi W_io)", "a_bo == x_bi", "f(x) = 2"])
def test_what_is_no_equation_is_refused(text):
    with pytest.raises(ValueError, match=r"is no equation; write it as in a_bo = sum_i"):
        list(f.equations(text))


def test_sigma_is_the_logistic_function():
    z = sp.Symbol("z", real=True)
    assert sp.simplify(f.SYMBOLIC["sigma"](z).item().rewrite(sp.exp) - 1 / (1 + sp.exp(-z))) == 0


# --- TeX ------------------------------------------------------------------------------------------------------


def value_of(tex, values):
    """The value of TeX as Matrices writes it, by a reader that knows nothing of how it was made."""
    for there, here in [(r"\left", ""), (r"\right", ""), (r"\odot", "*"), (r"\,", "@"), (r"^\top", ".T")]:
        tex = tex.replace(there, here)
    return eval(tex, dict(values))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_sums_are_written_as_the_products_of_matrices_that_they_are(seed):
    rng = np.random.default_rng(seed)
    values = {"x": rng.normal(size=(3, 2)), "W": rng.normal(size=(2, 4)), "y": rng.normal(size=(3, 4))}
    for text in (
        "a_bo = sum_i(x_bi * W_io)",
        "q_io = sum_b(x_bi * y_bo)",
        "q_bi = sum_o(y_bo * W_io)",
        "q_bi = sum_o(y_bo * y_bo * W_io) * x_bi",
        "q_io = W_io * sum_b(y_bo * x_bi) + W_io",
        "q_bo = (y_bo - sum_i(W_io * x_bi)) * y_bo",
        "q_oi = sum_b(x_bi * y_bo)",
        "q_ob = sum_i(x_bi * W_io)",
    ):
        (equation,) = f.equations(text)
        left, _, right = f.tex(equation, f.Matrices).partition(" = ")
        assert left == equation.name
        expected = f.evaluate(equation, values, f.NUMERIC)
        np.testing.assert_allclose(value_of(right, values), expected, rtol=1e-12, err_msg=right)


def test_a_sum_over_one_matrix_is_its_product_with_ones():
    (loss,) = f.equations("L = sum_b(sum_o(d_bo**2)) / (B * O)")
    assert f.tex(loss, f.Matrices) == r"L = \frac{\mathbf{1}^\top d^{2}\,\mathbf{1}}{B\,O}"
    assert f.tex(loss, f.Entries) == r"L = \frac{\sum_{b} \sum_{o} d_{bo}^{2}}{B\,O}"
    (bias,) = f.equations("db_j = sum_b(du_bj * dv_bj)")
    assert f.tex(bias, f.Matrices) == r"db = \mathbf{1}^\top \left(du \odot dv\right)"
    (shared,) = f.equations("dtheta_p = sum_t(dq_tp)")
    assert f.tex(shared, f.Matrices) == r"d\theta = \mathbf{1}^\top dq"
    (rows,) = f.equations("q_b = sum_o(y_bo)")
    assert f.tex(rows, f.Matrices) == r"q = y\,\mathbf{1}"


def test_a_sum_that_is_no_product_of_matrices_stays_a_sum():
    (equation,) = f.equations("y_bo = sum_i(x_bi * W_io * c_o)")
    with pytest.raises(LookupError):
        f.tex(equation, f.Matrices)
    assert f.tex(equation, f.Entries) == r"y_{bo} = \sum_{i} x_{bi}\,W_{io}\,c_{o}"


def test_symbols():
    written = {
        "W_hat": r"\hat{W}",
        "dW_hat": r"d\hat{W}",
        "h_new": "h'",
        "delta": r"\delta",
        "dx_g": "dx^{g}",
        "b1": r"\beta_1",
    }
    assert {name: f.symbol(name) for name in written} == written


# --- the pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_is_written_again(name):
    text = PAGES[name].read_text(encoding="utf-8")
    assert write.written(text) == text, f"run: python docs/write.py {name}"


def test_regions_stay_apart_whether_they_have_an_argument_or_not():
    page = "<!-- write: exit-codes -->\n<!-- end -->\n\nkept\n\n<!-- write: forward mix -->\n<!-- end -->\n"
    new = write.written(page)
    assert "\n\nkept\n\n<!-- write: forward mix -->\n\n<a id" in new
    assert write.written(new) == new
    with pytest.raises(ValueError, match="a region is not closed with <!-- end --> before the next"):
        write.written(page.replace("<!-- end -->", "", 1))


def test_a_page_with_another_sign_differs():
    page = write.written("<!-- write: forward mix -->\n<!-- end -->\n")
    assert write.written(page) == page
    wrong = page.replace("1 - g", "1 + g")
    assert wrong != page
    assert write.written(wrong) == page


def test_examples_are_run_in_one_namespace_and_what_they_print_is_written():
    page = "```python\n>>> x = 2\n>>> for q in (x, 3):\n...     print(q)\n>>> x\n\n```\n\n"
    page += "text\n\n```python\n>>> x / 0\nwrong\n\n```\n"
    new = write.written(page)
    assert ">>> for q in (x, 3):\n...     print(q)\n2\n3\n\n>>> x\n2\n\n```" in new  # can be pasted at a prompt
    assert (
        ">>> x / 0\nTraceback (most recent call last):\n    ...\nZeroDivisionError: division by zero\n\n```" in new
    )
    assert write.written(new) == new


def test_there_are_examples():
    count = sum(page.read_text(encoding="utf-8").count("\n>>> ") for page in PAGES.values())
    assert count >= 100


def test_names_of_calls_are_not_read():
    assert f.names(ast.parse("sum_i(exp(x_bi) * W_io)").body[0].value) == {"x_bi", "W_io"}
