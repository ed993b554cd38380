"""The one error of a task: a class that decides what happens next, a code to match on, words to read."""

BAD_INPUT = "bad_input"
OOM = "oom"
CRASH = "crash"
CANCELLED = "cancelled"


class Failure(Exception):
    """A task, or the loading of a model, that cannot go on.

    ``kind`` is the failure class of the host protocol (``bad_input`` fails at once, ``oom`` asks for more
    room, ``crash`` is tried again, ``cancelled`` was asked for).
    """

    def __init__(self, kind, code, message):
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.message = message


def bad_input(code, message):
    """A fault of the task or its media: trying again cannot help."""
    return Failure(BAD_INPUT, code, message)


def classify(error):
    """Any exception as a ``Failure``; what is not known is a crash, named by its type."""
    if isinstance(error, Failure):
        return error
    text = str(error) or type(error).__name__
    lowered = text.lower()
    # CTranslate2 and CUDA raise plain RuntimeErrors: their words are all there is to go by.
    if isinstance(error, MemoryError) or "out of memory" in lowered or "alloc_failed" in lowered:
        return Failure(OOM, "out_of_memory", text)
    if isinstance(error, OSError) and error.filename:
        return Failure(CRASH, "io_error", f"{error.filename}: {error.strerror}")
    return Failure(CRASH, type(error).__name__, text)
