"""The one exception tree: what a user can be told, and can do something about.

Every message says what is wrong, where (a path, a row, a setting) and what to do. Anything that is
not a WhoamaiError is a defect of ours and keeps its traceback.
"""


class WhoamaiError(Exception):
    """Base of everything a user can mend. The command line prints it in red and exits with 2."""


class SettingError(WhoamaiError, ValueError):
    """A value given on the command line or in a config cannot be used."""


class DataError(WhoamaiError, ValueError):
    """A data file is missing, unreadable, empty or not of a known form."""


class ModelError(WhoamaiError, ValueError):
    """A model folder or hub name cannot be loaded, or the model cannot be used for this."""


class OutputError(WhoamaiError, OSError):
    """A result cannot be written: no space, no permission, something in the way."""
