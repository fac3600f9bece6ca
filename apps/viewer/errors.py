"""Errors of the viewer's queues."""


class BusyError(RuntimeError):
    """Raised when the server has as much to do as it accepts."""


class Cancelled(Exception):
    """Ends work that was cancelled, or superseded by a newer request of the same client."""
