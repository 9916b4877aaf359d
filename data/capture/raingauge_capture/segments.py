# SPDX-License-Identifier: Apache-2.0
"""Which tokens of a sequence are video, image, text: runs with a role, and the grid of visual ones."""

from dataclasses import dataclass

from .errors import CaptureError

ROLES = ("text", "image", "video", "reference", "pad")


@dataclass(frozen=True)
class Segment:
    """A run of tokens. Visual ones are raster ordered on frames x height x width; text has zeros."""

    role: str
    start: int
    length: int
    frames: int = 0
    height: int = 0
    width: int = 0

    def __str__(self):
        return (f"{self.role} {self.length}" if self.role in ("text", "pad")
                else f"{self.role} {self.frames}x{self.height}x{self.width}")


def visual_tokens(grids):
    return sum(f * h * w for f, h, w in grids)


def make_segments(grids, tokens, text_pos):
    """Segments of `tokens` tokens: the grids in order, and what is left as text at `text_pos`.

    grids: [(frames, height, width), ...]; the first is the generated one, the others are references.
    text_pos: `front`, `back`, or None where no text is expected. Raises CaptureError when the grids
    and the text do not add up.
    """
    text = tokens - visual_tokens(grids)
    shapes = " + ".join("x".join(map(str, grid)) for grid in grids)
    if text < 0 or any(side < 1 for grid in grids for side in grid):
        raise CaptureError(f"wrong grid: {shapes} is {visual_tokens(grids)} tokens, the sequence has "
                           f"{tokens}; give the token grid (after VAE and patch) with --grid F,H,W")
    if text and text_pos not in ("front", "back"):
        raise CaptureError(f"wrong grid or unknown text: {shapes} is {tokens - text} of {tokens} tokens; say "
                           f"where the other {text} are text with --text-pos front or back, or correct --grid")
    segments, at = [], 0
    if text and text_pos == "front":
        segments.append(Segment("text", 0, text))
        at = text
    for i, (frames, height, width) in enumerate(grids):
        role = "reference" if i else "video" if frames > 1 else "image"
        segments.append(Segment(role, at, frames * height * width, frames, height, width))
        at += frames * height * width
    if text and text_pos == "back":
        segments.append(Segment("text", at, text))
    return segments


def text_range(segments):
    """[start, length] of the text, or [] without one."""
    return next(([s.start, s.length] for s in segments if s.role == "text"), [])
