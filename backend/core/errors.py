"""What can go wrong in the science, as small exceptions that carry their data.

Every message says what is wrong, where, and what to do; the service and the command line show it as it is.
"""


class CalibroscopeError(Exception):
    """Base of all errors that a user can do something about."""


class BadConfig(CalibroscopeError, ValueError):
    """A run was asked for that makes no sense."""


class BadLayer(CalibroscopeError):
    """A layer that the model does not have."""


class BadNeuron(CalibroscopeError):
    """A neuron's name that cannot be read, or that the model does not have."""


class NoSuchNeuron(BadNeuron):
    """A neuron or a head, rightly named, that the model does not have."""


class BadIntervention(CalibroscopeError):
    """An intervention whose value is missing, needless or not finite."""


class BadText(CalibroscopeError):
    """A text that cannot be analysed: empty, too long, or too short after tokenisation."""


class SourceError(CalibroscopeError):
    """Weights or text that cannot be found, fetched or trusted."""


class ChecksumMismatch(SourceError):
    """A fetched file whose SHA-256 is not the expected one."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        self.expected, self.actual = expected, actual
        super().__init__(
            f"{what} has SHA-256 {actual[:12]}… instead of {expected[:12]}…: the download is damaged or not the file "
            "this version was made for. It was not used; run the command again to fetch it anew."
        )


class UnsupportedModel(CalibroscopeError):
    """A model whose architecture the closed forms do not cover."""


class SelfCheckFailed(CalibroscopeError):
    """The processed model does not compute what the original computes."""


class ModelTooLarge(CalibroscopeError):
    """The model or the work on it does not fit in memory."""


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, however it is said: torch's allocators raise RuntimeErrors, the system OSErrors."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in words or "out of memory" in words


def first_line(error: BaseException) -> str:
    """What a library's error says, short enough for a sentence."""
    text = str(error).strip()
    return text.splitlines()[0][:200].rstrip(". ") if text else type(error).__name__
