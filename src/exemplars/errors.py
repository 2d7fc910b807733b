"""The errors a caller can act on.

ExemplarsError
├── FormatError        a file or folder is not what it should be: wrong, truncated, altered
├── MismatchError      two things do not belong together: dictionary and model, checkpoint and build
├── SourceError        a text, model, or corpus cannot be found or read
├── CalibrationError   a sample too small, or one whose directions cancel
└── ActivationError    a model gave something that cannot be used: NaN, Inf, the wrong width

A wrong argument is a `ValueError`. Each message is one sentence: what was found, what was
expected, what to do.
"""


class ExemplarsError(Exception):
    """The root of what this package raises for reasons outside the call itself."""


class FormatError(ExemplarsError):
    """A file or folder is not what it should be: wrong, truncated, or altered."""


class MismatchError(ExemplarsError):
    """Two things do not belong together: dictionary and model, checkpoint and build."""


class SourceError(ExemplarsError):
    """A text, model, or corpus cannot be found or read."""


class CalibrationError(ExemplarsError):
    """The calibration sample is too small, or its directions cancel."""


class ActivationError(ExemplarsError):
    """A model gave something that cannot be used: NaN, Inf, or the wrong width."""


class AuditError(ExemplarsError):
    """A search answered wrongly, or a bound lay below what it bounds."""
