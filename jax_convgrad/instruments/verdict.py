"""What reports have in common: a verdict, which can be asked for and raised, and is no truth value."""

from __future__ import annotations


class GradientError(AssertionError):
    """Gradients are not right; the message is the report."""


class Report:
    """A report with a verdict. Printed, it is tables, and in a notebook the same in HTML."""

    @property
    def ok(self) -> bool:
        """Whether all is right so far as the report can tell."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        """Refused: is it the report that is there, or what it reports on that is right?"""
        raise TypeError(f"a {type(self).__name__} is neither true nor false: ask for its .ok")

    def raise_if_wrong(self) -> None:
        """Does nothing where the report is ok.

        Raises:
          GradientError: it is not; the message is the report.
        """
        if not self.ok:
            raise GradientError(str(self))
