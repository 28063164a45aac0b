"""Reports with a verdict: it can be asked for and raised, but a report has no truth value."""

from __future__ import annotations

from jax_convgrad.table import Printed


class GradientError(AssertionError):
    """Gradients are wrong; the message is the report."""


class Report(Printed):
    """A report with a verdict, ``ok``."""

    @property
    def ok(self) -> bool:
        """Reports whether all is right as far as the report can tell."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        """Refuses: it is not clear whether the report or what it reports on would be true."""
        raise TypeError(f"a {type(self).__name__} is neither true nor false: ask for its .ok")

    def raise_if_wrong(self) -> None:
        """Does nothing if the report is ok.

        Raises:
          GradientError: the report is not ok; the message is the report.
        """
        if not self.ok:
            raise GradientError(str(self))
