"""docs/winograd.md: its matrices are those of the C++ transforms, and its tables those of their scripts."""

import ast
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jax_convgrad import conv
from jax_convgrad.instruments.winograd_transforms import POINTS, RESULTS, TAPS, transforms

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "winograd.md").read_text()
SOURCE = (ROOT / "cpu_src" / "microkernels" / "winograd_transforms.cc").read_text()
C, E4, E3 = transforms(POINTS, RESULTS, TAPS)
# By the numbers of inputs and results of the C++ function.
MATRICES = {(6, 6): C.T, (4, 6): E4, (3, 6): E3, (6, 4): E4.T, (6, 3): E3.T}


def cpp_transforms():
    """The bodies of the C++ functions as Python, by the numbers of their inputs and results."""
    function = r"void transform\(const V \(&(\w+)\)\[(\d)\], V \(&(\w+)\)\[(\d)\]\) \{\n(.*?)\n\}"
    constants = re.findall(r"constexpr float (k\w+) = ([^,;]+)(?:, (k\w+) = ([^;]+))?;", SOURCE)
    values = {}
    for pairs in constants:
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if name:
                values[name] = eval(_python(value), {}, values)
    found = {}
    for source, count, result, rows, body in re.findall(function, SOURCE, re.DOTALL):
        lines = re.sub(r"\s+", " ", _python(body).replace("const V ", "")).split(";")
        statements = [part for line in lines for part in re.split(r", (?=\w+ = )", line.strip()) if part]
        found[int(count), int(rows)] = (source, result, statements)
    return values, found


def _python(code):
    return re.sub(r"(\d\.\d+|\d)f\b", r"\1", code)


def test_the_cpp_constants_are_those_of_the_points():
    constants, functions = cpp_transforms()
    small, large = constants["kSmall"], constants["kLarge"]
    assert list(POINTS) == pytest.approx([0, small, -small, large, -large])
    assert functions.keys() == MATRICES.keys()
    for (count, rows), (source, result, statements) in functions.items():
        names = dict(constants) | {source: np.eye(count), result: np.zeros((rows, count))}
        exec("\n".join(statements), names)
        np.testing.assert_allclose(names[result], MATRICES[count, rows], atol=1e-7)


def test_the_matrices_on_the_page():
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    for name, rows in re.findall(r"(\S+) =\n((?:  .*\n)+)", block):
        cells = [re.sub(r"√(\d)", r"math.sqrt(\1)", cell) for cell in rows.split()]
        numbers = [eval(re.sub(r"(\d)math", r"\1*math", cell), {"math": math}) for cell in cells]
        found[name] = np.reshape(numbers, (6, -1))
    np.testing.assert_allclose(found["C^T"], C.T, atol=1e-12)
    np.testing.assert_allclose(found["E4"], E4, atol=1e-12)
    np.testing.assert_allclose(found["E3"], E3, atol=1e-12)


def operations(statements, constants):
    """Multiplications and additions of a function's vectors; a product in a sum is fused with it."""

    def is_constant(node):
        return all(n.id in constants for n in ast.walk(node) if isinstance(n, ast.Name))

    count = 0
    for node in ast.walk(ast.parse("\n".join(statements))):
        if not isinstance(node, ast.BinOp) or is_constant(node):
            continue
        count += 1
        terms = (node.left, node.right) if isinstance(node.op, ast.Add | ast.Sub) else ()
        products = [t for t in terms if isinstance(t, ast.BinOp) and isinstance(t.op, ast.Mult)]
        count -= bool([term for term in products if not is_constant(term)])
    return count


def table(name):
    """The cells of the rows of a table that a comment names."""
    text = re.search(rf"<!-- (?:counted|measured): {name} -->\n\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_the_counts_of_operations():
    constants, functions = cpp_transforms()
    counted = []
    for (count, rows), (_, _, statements) in functions.items():
        along = operations(statements, constants)
        counted.append([str(along), str(along * (count + rows))])
    assert counted == [[*row[2:]] for row in table("transforms")[2:]]
    order = [(6, 6), (4, 6), (3, 6), (6, 4), (6, 3)]
    assert list(functions) == order


def test_what_the_text_makes_of_the_counts():
    both = {row[0]: int(row[3]) for row in table("transforms")[2:]}
    x, y = both["$C^T x$"], both["$E_4^T m$"]
    assert f"${x} + {y}$" in PAGE
    for channels, more, left in ((64, 12, 3.6), (16, 48, 2.7)):
        products = 36 * channels
        assert round(100 * (x + y) / products) == more and f"{more} % more" in PAGE
        assert round(4 * products / (products + x + y), 1) == left and f"{left} are" in PAGE


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_the_table_of_points(scripts):
    import winograd_points

    head, _, *rows = table("points")
    assert tuple(head) == winograd_points.HEAD
    for row, again in zip(rows, winograd_points.rows(), strict=True):
        assert row[:4] == list(again[:4])
        # NumPy's matrix product may add in another order elsewhere.
        assert np.array(row[4:], float) == pytest.approx(np.array(again[4:], float), rel=0.25)
        assert float(row[4]) == pytest.approx(float(row[3]), rel=0.1)


def test_the_table_of_errors(scripts):
    import accuracy

    head, _, *rows = table("accuracy")
    assert tuple(head) == accuracy.HEAD
    layers = [accuracy.parse_layer(layer) for layer in accuracy.LAYERS]
    assert [row[:2] for row in rows] == [
        [kind, str(layer.in_channels)] for kind in accuracy.KINDS for layer in layers
    ]
    for row in rows:
        pairs = np.array([[float(number) for number in cell.split("/")] for cell in row[2:]])
        assert (pairs[:3] <= (4, 8)).all() and (pairs[3:] <= 4).all()


def test_errors_are_measured_as_the_table_says(scripts, capsys):
    import accuracy

    accuracy.main(["2x12x12x32, 3x3, 32, pad 1", "--kinds", "normal"])
    head, _, row = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert head == f"| {' | '.join(accuracy.HEAD)} |" and cells[:2] == ["normal", "32"]
    default, highest = ([float(cell.split("/")[0]) for cell in cells[start : start + 3]] for start in (2, 5))
    assert all(0.01 < b < a <= 4 for a, b in zip(default, highest, strict=True))
    with pytest.raises(SystemExit):
        accuracy.main(["1x9x9x4, 3, 4"])
    with pytest.raises(SystemExit):
        accuracy.main(["--kinds", "strange"])
    told = capsys.readouterr().err
    assert "should have 2 sizes" in told and "strange is not one of normal" in told


def test_a_result_beside_larger_ones_has_their_error():
    """As the page warns: errors are in proportion to the largest numbers of the patch."""
    v = np.array([0, 0, 1e6, 1, 1, 1], np.float32)  # the last window reads three ones
    w = np.array([0.3, 0.7, 0.9], np.float32)
    c, e4, e3 = (matrix.astype(np.float32) for matrix in (C, E4, E3))
    y = e4.T @ ((c.T @ v) * (e3 @ w))
    assert 1e-3 < abs(y[3] - w.sum()) < 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_how_far_an_infinity_reaches(bad):
    """Along each axis to the results whose window has it, and to those of the tile in whose middle it is."""
    random = np.random.default_rng(0)
    clean = random.standard_normal((1, 12, 12, 32)).astype(np.float32)
    w = random.standard_normal((3, 3, 32, 32)).astype(np.float32)
    layer = jax.jit(lambda x: conv(x, w, padding="SAME"))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        expected = np.asarray(layer(clean))
        counts = set()
        for row, column in [(5, 6), (4, 6), (7, 4), (0, 11)]:
            x = clean.copy()
            x[0, row, column, 3] = bad
            y = np.asarray(layer(x))
            along = []
            for at in (row, column):
                window, tile = range(max(at - 1, 0), min(at + 2, 12)), range(at // 4 * 4, at // 4 * 4 + 4)
                along.append(np.isin(np.arange(12), [*window, *tile]))
            reached = np.logical_and.outer(*along)
            assert not np.isfinite(y[0, reached]).any()
            np.testing.assert_array_equal(y[0, ~reached], expected[0, ~reached])
            counts.add(int(reached.sum()))
    assert counts == {16, 20, 25}
