"""Exit codes, and the one-line message a user sees in place of a traceback."""

import errno
from dataclasses import dataclass

from fieldmorph.fields.errors import InputError, SettingError, UnsafeError

USAGE, BAD_INPUT, UNSAFE, GATE_MISSED, EXHAUSTED = 2, 3, 4, 5, 6
SIGNALLED = 128  # plus the signal's number
PIPE_CLOSED = SIGNALLED + 13
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


@dataclass(frozen=True)
class Exit:
    """Exit code of the process and the message that goes with it."""

    code: int
    message: str


def explain(error: BaseException) -> Exit | None:
    """Return exit code and message for an error, or None for a defect, which is shown with its traceback."""
    text = " ".join(str(error).split())
    match error:
        case UnsafeError():
            return Exit(UNSAFE, text)
        case InputError():
            return Exit(BAD_INPUT, text)
        case SettingError():
            return Exit(USAGE, text)
        case KeyboardInterrupt():
            return Exit(SIGNALLED + 2, "interrupted")
        case MemoryError():
            return Exit(EXHAUSTED, f"out of memory {text}".strip())
        case OSError():
            return Exit(EXHAUSTED if error.errno in NO_ROOM else BAD_INPUT, text)
        case RuntimeError() if "alloc" in text and "memory" in text:  # torch's, on a CPU and on CUDA
            return Exit(EXHAUSTED, f"out of memory: {text[:200]}")
    from fieldmorph.fields.loop import Interrupted  # imports torch: only once nothing else fits

    if isinstance(error, Interrupted):
        hint = "; run the same command with --resume to continue" if error.state_path else ""
        return Exit(SIGNALLED + error.signum, text + hint)
    return None
