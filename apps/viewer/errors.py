"""Errors of the viewer's queues."""


class BusyError(RuntimeError):
    """Error of a request that comes while the server has as much to do as it accepts."""


class Cancelled(Exception):
    """End of work that was cancelled, or superseded by a newer request of the same client."""
