# SPDX-License-Identifier: Apache-2.0
"""Which layers, steps, heads and branches are recorded, and how many bytes that makes."""

from dataclasses import dataclass, fields

from .errors import CaptureError

GIGABYTE = 1e9


@dataclass
class Selection:
    """layers: `all`, numbers `0,5,10`, `every:5`, `spread:4`; steps also `frac:.1,.5,.9`; heads: `all`,
    numbers, `spread:4`; branch: `cond`, `uncond` or `both`; batch_items: `all` or numbers."""

    layers: str = "spread:4"
    steps: str = "frac:.1,.5,.9"
    heads: str = "spread:4"
    branch: str = "cond"
    batch_items: str = "0"


# Sizes on Wan 14B 720p: 58 MB a head-record; `tiny` holds 2 heads and is meant for small clips.
PRESETS = {
    "tiny": (Selection("spread:1", "frac:.5", "spread:2"), 0.02),
    "probe": (Selection("spread:4", "frac:.1,.5,.9", "spread:4"), 8.0),
    "layer": (Selection("spread:1", "frac:.5", "all"), 8.0),
    "study": (Selection("spread:8", "spread:5", "spread:8", "both"), 64.0)}


def preset(name, **overrides):
    """(Selection, limit in GB) of a preset; overrides that are None leave its own."""
    if name not in PRESETS:
        raise CaptureError(f"no preset `{name}`; there are: {', '.join(PRESETS)}")
    base, limit = PRESETS[name]
    chosen = {f.name: overrides.get(f.name) or getattr(base, f.name) for f in fields(Selection)}
    return Selection(**chosen), limit


def _spread(count, total):
    """`count` of `total`, evenly, from the middle of equal parts: 4 of 40 are 5, 15, 25, 35."""
    count = min(count, total)
    return [int((2 * i + 1) * total / (2 * count)) for i in range(count)]


def resolve(text, total, what, names=()):
    """The numbers below `total` that `text` means, ascending. names: what the numbers stand for."""
    try:
        kind, _, rest = str(text).partition(":")
        if text == "all":
            chosen = range(total)
        elif kind == "every":
            chosen = range(0, total, int(rest))
        elif kind == "spread":
            chosen = _spread(int(rest), total)
        elif kind == "frac" and what == "step":
            chosen = [min(total - 1, int(float(part) * total)) for part in rest.split(",")]
        else:
            chosen = [names.index(part) if part in names else int(part) for part in str(text).split(",")]
        chosen = sorted(set(chosen))
    except (ValueError, ZeroDivisionError):
        raise CaptureError(f"--{what}s {text}: allowed are all, numbers 0,5,10, every:N, spread:N"
                           + (", frac:.1,.5" if what == "step" else "")
                           + (f", and the names {names[0]} ... {names[-1]}" if names else "")) from None
    bad = [number for number in chosen if not 0 <= number < total]
    if bad or not chosen:
        known = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
        raise CaptureError(f"--{what}s {text}: there is no {what} {bad[0] if bad else text}; the model has {total}, "
                           f"0 to {total - 1}{known}")
    return chosen


def wants_branch(selection, branch):
    if selection.branch not in ("cond", "uncond", "both"):
        raise CaptureError(f"--branch {selection.branch}: allowed are cond, uncond, both")
    return selection.branch == "both" or branch == selection.branch


def wants_item(selection, item):
    if selection.batch_items == "all":
        return True
    try:
        return item in {int(part) for part in str(selection.batch_items).split(",")}
    except ValueError:
        raise CaptureError(f"--batch-items {selection.batch_items}: allowed are all, or numbers 0,1") from None


@dataclass
class Layer:
    """What the listing pass saw of one self-attention layer. tokens: valid ones, by batch item."""

    name: str
    heads: int
    head_dim: int
    element: int
    tokens: list


@dataclass
class Plan:
    """What is going to be recorded. bytes: of q, k, v (and o), from the lengths of the first pass; a guidance
    branch with another prompt length differs by that."""

    layers: list     # Layer, in execution order
    chosen: list     # their numbers
    heads: dict      # layer number -> original head numbers
    steps: list
    steps_total: int
    records: int
    bytes: int
    lines: list      # for people


def make_plan(layers, selection, steps_total, passes, items_of_pass, with_output, element=None):
    """passes: guidance passes a step that are wanted; items_of_pass: batch items recorded in each.
    element: bytes an element when a dtype is forced."""
    names = [layer.name for layer in layers]
    chosen = resolve(selection.layers, len(layers), "layer", names)
    steps = resolve(selection.steps, steps_total, "step")
    heads = {i: resolve(selection.heads, layers[i].heads, "head") for i in chosen}
    tensors, size = 3 + bool(with_output), 0
    for i in chosen:
        layer = layers[i]
        lengths = [layer.tokens[item] for item in items_of_pass]
        size += tensors * len(heads[i]) * layer.head_dim * (element or layer.element) * sum(lengths)
    size *= len(steps) * passes
    records = len(chosen) * len(steps) * passes * len(items_of_pass)
    first = layers[chosen[0]]
    lines = [f"layers {chosen} of {len(layers)} ({names[chosen[0]]} ...), steps {steps} of {steps_total}",
             f"heads {heads[chosen[0]]} of {first.heads}, head_dim {first.head_dim}, tokens {sorted(set(first.tokens))}",
             f"{records} records, {size / GIGABYTE:.3f} GB of {'q, k, v, o' if with_output else 'q, k, v'}"]
    return Plan(layers, chosen, heads, steps, steps_total, records, size, lines)
