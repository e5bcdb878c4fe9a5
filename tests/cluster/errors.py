"""The one error of this package: a control plane could not be had, and the message says what to do."""


class ClusterError(RuntimeError):
    """A program is missing, did not start or died. The message ends with the tail of its log."""
