"""``explain``: the terms of one element, with numbers where there are arrays, as text and as a picture."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jax_convgrad.instruments.elements import AnyLayer, Index, shapes_of
from jax_convgrad.instruments.explained_terms import ExplainedTerms
from jax_convgrad.instruments.explained_values import by_kernels, drawn_values
from jax_convgrad.instruments.explanation_text import as_text
from jax_convgrad.instruments.layer_text import parse_layer_or_pool
from jax_convgrad.instruments.terms import terms_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Explanation(ExplainedTerms):
    """Where an element of y, dx, dw or db comes from; ``print`` it, look at it in a notebook, or ``plot`` it.

    ``terms`` are the terms. Where there are numbers, ``arrays`` has x, w and dy by name, ``values`` a number
    a term, ``total`` what they make, and ``kernel`` the function of this package that was asked for the same
    element, and its answer.
    """

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def plot(self, title: str | None = None) -> Figure:
        """Draws input, filter and output with the cells that make the element lit, as ``plot_terms`` does.

        Raises:
          ImportError: matplotlib is not installed.
        """
        from jax_convgrad.instruments.terms_plot import plot_terms

        return plot_terms(self.terms, **self.arrays, title=title)


def explain(
    layer: AnyLayer | str,
    array: str = "dx",
    index: Sequence[int] | None = None,
    *,
    x: Any = None,
    w: Any = None,
    dy: Any = None,
    seed: int | None = None,
) -> Explanation:
    """Which products make one element of a layer's output or of its gradients.

    ```python
    from jax_convgrad import explain

    print(explain("1x5x5x1, 3x3, 1, stride 2", "dx", (0, 2, 2, 0)))
    ```

    Args:
      layer: a line of text, as ``python -m jax_convgrad explain`` takes it: "1x5x5x1, 3x3, 1, stride 2", or
        of pooling "1x6x6x1, max 3x3, stride 2"; or a ``Layer`` or ``Pool`` read from one.
      array: "y", "dx" for ∂E/∂X, "dw" for ∂E/∂W or "db" for ∂E/∂b; pooling has "y" and "dx".
      index: of the element, channels last: (n, o..., k) of y, (n, i..., c) of dx, (r..., c, k) of dw with c
        counted within its group, (k,) of db. None is the one in the middle.
      x: with w and dy the arrays to look into, [N, spatial..., C], [spatial..., C / groups, K] and
        [N, output spatial..., K]; those that the element is made of are enough.
      w: the filter.
      dy: ∂E/∂Y.
      seed: draws the arrays that are not given, of small integers.

    Returns:
      An ``Explanation``. Its formulas are those of docs/derivation.md.

    Raises:
      TypeError: an index that is not integers.
      ValueError: the layer is malformed, there is no such array or element, or an array that is needed is
        missing or of another shape.
    """
    if isinstance(layer, str):
        layer = parse_layer_or_pool(layer)
    terms = terms_of(layer, array, middle(layer, array) if index is None else index)
    given = {name: value for name, value in (("x", x), ("w", w), ("dy", dy)) if value is not None}
    arrays = (drawn_values(layer, seed) | given) if seed is not None else given
    if not arrays:
        return Explanation(terms, {})
    values = terms.values(**arrays)
    return Explanation(terms, arrays, values, terms.total(**arrays), by_kernels(terms, **arrays))


def middle(layer: AnyLayer, array: str) -> Index:
    """The middle element along the positions of an array, of the first image and channel."""
    shape = shapes_of(layer).get(array)
    if shape is None:
        return ()  # terms_of says that there is no such array
    spatial = range(len(shape) - 2) if array == "dw" else range(1, len(shape) - 1)
    return tuple(size // 2 if axis in spatial else 0 for axis, size in enumerate(shape))
