"""Define the exceptions that genrec raises when it cannot do what the caller asked for.

::

    GenrecError                 exit code 1
    ├── SettingsError           2   an unknown option or an invalid value
    ├── DataError               3   a file, column or row that cannot be read
    ├── PromptError             4   a template or history that cannot be rendered
    ├── ModelError              5   a model that cannot be downloaded, loaded or used
    └── RequestError            6   a request that cannot be answered, such as k = 0
        └── UnknownUserError    6

Every message says what was given, what was expected and how to fix it. The command line prints the
message without a traceback and exits with the class's ``exit_code``.
"""

from __future__ import annotations


class GenrecError(Exception):
    """The base class of all exceptions that genrec defines."""

    exit_code = 1


class SettingsError(GenrecError):
    """Raised when an option or setting is unknown or has an invalid value."""

    exit_code = 2


class DataError(GenrecError):
    """Raised when a file, column or row cannot be read or does not have the expected form."""

    exit_code = 3


class PromptError(GenrecError):
    """Raised when a template or history cannot be rendered as a prompt."""

    exit_code = 4


class ModelError(GenrecError):
    """Raised when a language model cannot be downloaded, loaded or used."""

    exit_code = 5


class RequestError(GenrecError):
    """Raised when a request cannot be answered, for example because it asks for 0 items."""

    exit_code = 6


class UnknownUserError(RequestError):
    """Raised when a user is not in the dataset."""
