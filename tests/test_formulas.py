"""The formulas in the docstrings are proven, are what the code computes, and are what the pages show."""

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import nalu_np as nn
from nalu_np import vjps
from nalu_np.units import paths

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
        for tag in re.findall(r'<a id="([a-z]\w*\.\d+\*?)"></a>', path.read_text(encoding="utf-8"))
    }
    assert shown == set(f.stated())


@pytest.mark.parametrize(
    "layer", [nn.NAC(3, 2), nn.LogNAC(3, 2, eps=0.1), nn.NALU(3, 2, eps=0.1), nn.SumPath(3, 2)], ids=repr
)
def test_the_equations_under_the_name_of_a_unit_are_what_it_computes(layer):
    below = type(layer).__doc__.partition("\n\n")[2].partition("\n\n")[0]
    statements = re.split(r",  |\n", below)
    values = {**layer.init(1, dtype="float64"), "x": np.random.default_rng(0).normal(size=(4, 3)), "eps": 0.1}
    expected = layer({n: values[n] for n in layer.shapes()}, values["x"])[0]
    for statement in reversed(statements):
        exec(statement.strip(), {**f.NUMERIC}, values)
    np.testing.assert_allclose(values["y"], expected, rtol=1e-13)


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


SUM = (
    "y_bo = sum_i(x_bi * W_io)  [a.1]",
    "dx_bi = sum_o(dy_bo * W_io)  [a.1*]",
    "dW_io = sum_b(x_bi * dy_bo)  [a.1*]",
)
TWO = ("y_bo = sum_i(x_bi * W_io)  [a.1]", "m_bo = sum_i(x_bi**2 * W_io)  [a.2]")
DX = "dx_bi = sum_o(dy_bo * W_io) + 2 * x_bi * sum_o(dm_bo * W_io)  [a.0*]"
PARTS = (
    "dW_a_io = sum_b(x_bi * dy_bo)  [a.1*]",
    "dW_m_io = sum_b(x_bi**2 * dm_bo)  [a.2*]",
    "dW_io = dW_a_io + dW_m_io  [a.0*]",
)
LOSS = "L = sum_b(sum_o(y_bo**2)) / (B * O)  [a.1]"
COUNT = "dy_bo = 2 * dL * y_bo / (B * O)  [a.1*]"


@pytest.mark.parametrize("lines", [SUM, (*TWO, DX, *PARTS), (LOSS, COUNT)])
def test_what_the_next_test_spoils_is_right(lines):
    assert f.refuted(system("here", *lines)) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (SUM[:2], "dW is not stated"),
        ((*SUM, SUM[1]), "dx is stated twice"),
        ((SUM[0], "y_bo = sum_i(x_bi)  [a.2]", *SUM[1:]), "y is stated twice"),
        ((SUM[0], SUM[2], SUM[1].replace("dx_bi", "qx_bi")), "dx is not stated"),
        ((*SUM, "dq_bi = 3 * ds_bi,  ds_bi = dq_bi  [a.2*]"), "reads what no equation makes"),
        ((*SUM, "dq_bi = x_bi  [a.2*]"), "dq is neither a gradient of a value nor a part of one"),
        (("m_bo = exp(p_bo)  [a.1]", "p_bo = log(m_bo) + x_bo  [a.1]", "dx_bo = dm_bo  [a.1*]"), "reads what no"),
        (("p_bo = 2 * x_bo,  y_bo = exp(p_bo)  [a.1]", "dx_bo = 2 * dp_bo  [a.1*]"), "dp is not stated"),
        (("y_bo = x_bo * c_o,  z_bo = c_o**2  [a.1]", "dx_bo = dy_bo * c_o  [a.1*]"), "dc is not stated"),
        (
            (*TWO, DX, PARTS[0].replace("[a.1*]", "[a.2*]"), PARTS[1].replace("[a.2*]", "[a.1*]"), PARTS[2]),
            "differs",
        ),
        (
            (*TWO, DX, PARTS[0].replace("  [", " + W_io  ["), PARTS[1].replace("  [", " - W_io  ["), PARTS[2]),
            "differs",
        ),
        ((LOSS, COUNT.replace("2 * dL", "dL").replace("(B * O)", "B")), "differs"),
        ((LOSS, COUNT.replace("B * O", "B * I")), "differs"),
        (("y_bo = c_o * x_bo  [a.1]", "dx_bo = dy_bo * c_o  [a.1*]", "dc_o = dy_bo * x_bo  [a.1*]"), "squeeze"),
        (("y_o = sum_b(c_o)  [a.1]", "dc_o = dy_o  [a.1*]"), "a sum over b of what has no such index"),
        (("y_bo = pow(x_bo, 2)  [a.1]", "dx_bo = 2 * dy_bo * x_bo  [a.1*]"), "'pow' is not defined"),
    ],
)
def test_what_could_hide_a_wrong_adjoint_is_refused(lines, said):
    try:
        problems = f.refuted(system("here", *lines))
    except (ValueError, NameError) as error:
        problems = [str(error)]
    assert problems
    assert said in problems[0]


def test_a_wrong_sign_in_the_largest_unit_is_told_briefly():
    (nalu,) = [s for s in SYSTEMS if s.where == "units/nalu.py: NALU.forward"]
    lines = [f"{q.text}  [{tag}]" for tag, q in nalu.equations]
    wrong = [line.replace("dW_io = dW_a_io + dW_m_io", "dW_io = dW_a_io - dW_m_io") for line in lines]
    assert lines != wrong
    (problem,) = f.refuted(system("here", *wrong))
    assert "[nalu.1*] dW_io = dW_a_io - dW_m_io: entry (0, 0) of dW_io differs" in problem
    assert len(problem) < 300


def test_a_product_over_an_index():
    product = (
        "y_bo = prod_i(W_io * x_bi + 1 - W_io)  [p.1]",
        "dW_io = sum_b(dy_bo * y_bo * (x_bi - 1) / (W_io * x_bi + 1 - W_io))  [p.1*]",
        "dx_bi = sum_o(dy_bo * y_bo * W_io / (W_io * x_bi + 1 - W_io))  [p.1*]",
    )
    assert f.refuted(system("here", *product)) == []
    (equation,) = f.equations(product[0].split("  [")[0])
    assert f.tex(equation, f.Entries).startswith(r"y_{bo} = \prod_{i} \left(W_{io}\,x_{bi} + 1 - W_{io}\right)")
    with pytest.raises(LookupError):
        f.tex(equation, f.Matrices)


@pytest.mark.parametrize(
    ("tag", "said"),
    [("[f.1*].", "a line is no equation with one tag at its end"), ("[f.1*] [f.2*]", "is no equation")],
)
def test_a_line_that_almost_is_an_equation_is_refused(tag, said, tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text(f'def f():\n    """One.\n\n    da_b = dx_b  {tag}\n    """\n')
    monkeypatch.setattr(f, "PACKAGE", tmp_path)
    with pytest.raises(ValueError, match=said):
        f.systems.__wrapped__()


# --- what stands between units --------------------------------------------------------------------------------


def of(where, **given):
    """By its formulas."""
    (stated,) = [s for s in SYSTEMS if s.where == where]
    return f.by_formula(stated, given)


ROWS, OUT = 3, 2
NORMAL = {
    n: np.random.default_rng(k).normal(size=(ROWS, OUT))
    for k, n in enumerate(("p", "dy", "s", "r", "dm", "h", "a", "dh_new"))
}


def test_the_constant_of_a_path():
    c = np.array([2.0, -3.0])
    layer = nn.SumPath(2, OUT, scale=True)
    y, vjp = layer._scaled({"c": c}, NORMAL["p"], lambda dp, need_dx: (dp, None), None)
    dp, gradients = vjp(NORMAL["dy"])
    formula = of("units/paths.py: _Path._scaled", c=c, p=NORMAL["p"], dy=NORMAL["dy"])
    for value, name in [(y, "y"), (dp, "dp"), (gradients["c"], "dc")]:
        np.testing.assert_allclose(value, formula[name], rtol=1e-14)


def test_the_sign_of_a_path(monkeypatch):
    s, r, dm = (NORMAL[n] for n in ("s", "r", "dm"))
    monkeypatch.setattr(paths, "log_product", lambda x, W, eps: (r, lambda dr, need_dx: (dr, None)))
    monkeypatch.setattr(paths, "parity", lambda x, W: s)
    m, vjp = nn.ProductPath(OUT, OUT).forward({"W": np.eye(OUT)}, r)
    formula = of("units/paths.py: ProductPath.forward", s=s, r=r, dm=dm)
    np.testing.assert_allclose(m, formula["m"], rtol=1e-14)
    np.testing.assert_allclose(vjp(dm)[0], formula["dr"], rtol=1e-14)


def test_an_accumulator_and_time():
    same = nn.Dense(OUT, OUT, bias=False)  # a = x W with W = 1, so that its dx is da
    cell, params = nn.Accumulator(same), {"W": np.eye(OUT)}
    (y, state), vjp = cell.step(params, NORMAL["a"], NORMAL["h"])
    formula = of("layers/recurrent.py: Accumulator", h=NORMAL["h"], a=NORMAL["a"], dh_new=NORMAL["dh_new"])
    da, _, dh = vjp(NORMAL["dh_new"], np.zeros((ROWS, OUT)))
    for value, name in [(y, "h_new"), (state, "h_new"), (da, "da"), (dh, "dh")]:
        np.testing.assert_allclose(value, formula[name], rtol=1e-14)

    x, dy, dstate = np.random.default_rng(9).normal(size=(3, 4, ROWS, OUT))
    steps = [cell.step(params, x_t, NORMAL["h"])[1] for x_t in x]
    dq, after = [], np.zeros((ROWS, OUT))
    for step, dy_t in zip(reversed(steps), dy[::-1], strict=True):
        _, dW, after = step(dy_t, after)
        dq.append(dW["W"].ravel())
    time = of(
        "layer.py: Scan.forward",
        theta=np.eye(OUT).ravel(),
        h_new=NORMAL["h"],
        dy=dy[0],
        dstate=dstate[0],
        dq=np.array(dq),
    )
    np.testing.assert_allclose(nn.scan(cell)(params, x)[1](dy)[1]["W"].ravel(), time["dtheta"], rtol=1e-12)
    np.testing.assert_allclose(steps[0](dy[0], dstate[0])[2], time["dh_new"], rtol=1e-14)


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


@pytest.mark.parametrize("seed", range(5))
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
        np.testing.assert_allclose(value_of(right, values), expected, rtol=1e-12, atol=1e-12, err_msg=right)


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
    (outer,) = f.equations("y_bio = x_bi * W_io")
    for formula in (equation, outer):
        with pytest.raises(LookupError):
            f.tex(formula, f.Matrices)
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
    for mistyped in (page.replace("<!-- end -->", "", 1), page.replace("write: exit", "write exit")):
        with pytest.raises(ValueError, match="a region is not opened as <!-- write: NAME --> or closed with"):
            write.written(mistyped)
    with pytest.raises(ValueError, match="no equation has a tag like nosuch"):
        write.written(page.replace("mix", "mix nosuch"))


def test_a_page_with_another_sign_differs():
    page = write.written("<!-- write: forward mix -->\n<!-- end -->\n")
    assert write.written(page) == page
    wrong = page.replace("1 - g", "1 + g")
    assert wrong != page
    assert write.written(wrong) == page


def test_examples_are_run_in_one_namespace_and_what_they_print_is_written():
    page = "```python\n>>> x = 2\n>>> for q in (x, 3):\n...     print(q)\n>>> x\n\n```\n\n"
    page += "text\n\n```python\n>>> x / 0\nTraceback\n\n```\n"
    with pytest.raises(RuntimeError, match="an example fails:\nx / 0\nTraceback"):
        write.written(page.replace("Traceback", "2"))
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


# --- the steps of the derivations, which are written by hand -----------------------------------------------------

#: Of each page, how many equations by hand give what is stated another right side: a step before, or another case.
#: All others must be what is stated, so that a sign that is wrong by hand is one more.
ON_THE_WAY = {
    "adam.md": 4,
    "gates.md": 1,
    "lognac.md": 2,
    "losses.md": 3,
    "nac.md": 3,
    "nalu.md": 3,
    "paths.md": 3,
    "products.md": 1,
    "recurrence.md": 2,
    "sums.md": 1,
    "weights.md": 2,
}


def plain(tex):
    """TeX without what does not change its meaning."""
    tex = re.sub(r"\\[,;]|\\(?:left|right|Big|cdot|thinspace)(?![a-z])|[\s&{}]", "", tex)
    return tex.replace(r"\mathrmsign", r"\operatornamesign").rstrip(".,;:")


def by_hand(page):
    """The equations of a page outside of its regions, as left sides and last right sides."""
    text = write.REGION.sub("", page.read_text(encoding="utf-8"))
    for shown in re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL):
        for line in re.split(r"\\\\|\\qquad|\\(?:begin|end)\{aligned\}", shown):
            left, *rights = line.split("=")
            if rights:
                yield plain(left), plain(rights[-1])


@pytest.mark.parametrize("page", sorted((DOCS / "derivations").glob("*.md")), ids=lambda page: page.name)
def test_what_a_derivation_arrives_at_is_what_is_stated(page):
    forms = {}
    for stated in SYSTEMS:
        for _, equation in stated.equations:
            for form in (f.Entries, f.Matrices):
                left, _, right = write._tex(equation, form).partition(" = ")
                forms.setdefault(plain(left), set()).add(plain(right))
    found = [(left, right) for left, right in by_hand(page) if left in forms]
    others = [f"{left} = {right}" for left, right in found if right not in forms[left]]
    assert len(others) == ON_THE_WAY.get(page.name, 0), others
