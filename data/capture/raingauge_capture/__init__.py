# SPDX-License-Identifier: Apache-2.0
"""Records Q, K and V of diffusion transformers as raingauge captures (data/README.md, format 1)."""

from .errors import CaptureError
from .file import CaptureReader, CaptureWriter
from .recorder import Recorder, StopCapture
from .segments import Segment, make_segments

__all__ = ["CaptureError", "CaptureReader", "CaptureWriter", "Recorder", "Segment", "StopCapture", "make_segments"]
