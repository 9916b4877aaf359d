# SPDX-License-Identifier: Apache-2.0
"""What the package raises for bad input: the message says what, where, what is allowed."""


class CaptureError(Exception):
    """A recording that cannot be made as asked, or a file that cannot be written or read."""
