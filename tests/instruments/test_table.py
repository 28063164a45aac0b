"""The instruments' tables: columns in line, and cells that say what they say in HTML too."""

from jax_convgrad.table import Table

TABLE = Table(("layer", "norm"), [("conv1", "1.5"), ("a<b", "12.25")], right=frozenset({"norm"}))


def test_columns_are_aligned():
    assert str(TABLE).splitlines() == ["layer   norm", "conv1    1.5", "a<b    12.25"]


def test_nothing_trails():
    assert str(Table(("a", "b"), [("long cell", ""), ("x", "y")])).splitlines()[1] == "long cell"


def test_html_escapes_its_cells():
    text = TABLE.html()
    assert text.count("<tr>") == 3
    assert '<td style="text-align:left">a&lt;b</td><td style="text-align:right">12.25</td>' in text
