"""The instruments' tables: columns in line, and cells that say what they say in HTML too."""

from jax_convgrad.table import Printed, Table

TABLE = Table(("layer", "norm"), [("conv1", "1.5"), ("a<b", "12.25")], right=frozenset({"norm"}))


def test_columns_are_aligned():
    assert str(TABLE).splitlines() == ["layer   norm", "conv1    1.5", "a<b    12.25"]


def test_nothing_trails():
    assert str(Table(("a", "b"), [("long cell", ""), ("x", "y")])).splitlines()[1] == "long cell"


def test_html_escapes_its_cells():
    text = TABLE.html()
    assert text.count("<tr>") == 3
    assert '<td style="text-align:left">a&lt;b</td><td style="text-align:right">12.25</td>' in text


def test_a_report_is_its_blocks():
    class Report(Printed):
        def _blocks(self):
            yield "1 < 2\nyes"
            yield TABLE
            yield "a note"

    assert str(Report()) == f"1 < 2\nyes\n\n{TABLE}\n\na note"
    html = f"<p><b>1 &lt; 2</b></p><p>yes</p>{TABLE.html()}<p>a note</p>"
    assert Report()._repr_html_() == html
