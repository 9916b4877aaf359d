# SPDX-License-Identifier: Apache-2.0
"""The command `raingauge-capture`: record one generation of a model into a capture file."""

import argparse
import ast
import contextlib
import importlib.util
import pathlib
import sys

import torch

from . import tiny, wan_repo
from .errors import CaptureError
from .recorder import Recorder
from .selection import PRESETS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def _parser():
    parser = argparse.ArgumentParser(
        prog="raingauge-capture", description="Record Q, K and V of one generation as a raingauge capture.",
        epilog="Then: raingauge capture validate FILE.h5; raingauge run EXPERIMENT.yaml with `captures: [FILE.h5]`.")
    parser.add_argument("--out", required=True, help="FILE.h5 to write")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="a diffusers pipeline: folder or name")
    source.add_argument("--tiny", choices=tiny.NAMES, help="a toy pipeline with random weights, for trying things out")
    source.add_argument("--wan-repo", help="folder of the authors' Wan2.1 or Wan2.2 repository (text-to-video)")
    run = parser.add_argument_group("the generation")
    run.add_argument("--prompt", default="")
    run.add_argument("--negative", help="negative prompt")
    run.add_argument("--image", help="first frame, for image-to-video pipelines")
    for name in ("height", "width", "frames", "num-steps"):
        run.add_argument(f"--{name}", type=int)
    run.add_argument("--guidance", type=float)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    run.add_argument("--torch-dtype", choices=DTYPES, default="bf16", help="of the weights (default: bf16)")
    run.add_argument("--offload", choices=("none", "model", "sequential"), default="none")
    run.add_argument("--pipe-arg", action="append", default=[], metavar="K=V", help="any argument of the pipeline's call")
    run.add_argument("--wan-task", default="t2v-14B")
    run.add_argument("--wan-checkpoint")
    what = parser.add_argument_group("what is recorded")
    what.add_argument("--preset", choices=PRESETS, default="probe")
    what.add_argument("--layers", help="all, 0,5,10, every:5, spread:4, or names")
    what.add_argument("--steps", help="all, 0,10, every:5, spread:5, frac:.1,.5,.9")
    what.add_argument("--heads", help="all, 0,3, spread:4")
    what.add_argument("--branch", choices=("cond", "uncond", "both"))
    what.add_argument("--q-rows", help=argparse.SUPPRESS)
    what.add_argument("--batch-items", help="all, or numbers (default: 0)")
    what.add_argument("--output", action="store_true", help="also the model's own output `o`")
    what.add_argument("--dtype", choices=DTYPES, help="round to it (default: as computed)")
    what.add_argument("--no-trim", action="store_true", help="keep masked text, marked in key_valid")
    what.add_argument("--grid", action="append", help="F,H,W in tokens, once for every visual run (default: told by the model)")
    what.add_argument("--text-pos", choices=("front", "back"), help="where text stands, for models that are not known")
    what.add_argument("--decode", action="store_true", help="run to the end and store the decoded frames")
    safety = parser.add_argument_group("safety")
    safety.add_argument("--dry-run", action="store_true", help="print the plan and its bytes; record nothing")
    safety.add_argument("--max-gb", type=float, help="refuse a larger plan (default: the preset's)")
    safety.add_argument("--overwrite", action="store_true")
    safety.add_argument("--compress", action="store_true", help="shuffle + gzip-1; about 0.75 of the size, 35 MB/s")
    safety.add_argument("--allow-nonfinite", action="store_true")
    return parser


def _pipe_arguments(options):
    arguments = {}
    for text in options.pipe_arg:
        key, equals, value = text.partition("=")
        if not equals:
            raise CaptureError(f"--pipe-arg {text}: must be KEY=VALUE")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key] = value
    given = {"height": options.height, "width": options.width, "num_frames": options.frames,
             "num_inference_steps": options.num_steps, "guidance_scale": options.guidance}
    return {key: value for key, value in given.items() if value is not None} | arguments


def _loaded(options):
    from diffusers import DiffusionPipeline
    try:
        return DiffusionPipeline.from_pretrained(options.model, torch_dtype=DTYPES[options.torch_dtype])
    except (OSError, ValueError) as error:
        hint = ""
        if importlib.util.find_spec("accelerate") is None:
            hint = "; models that keep parts in float32 need the package accelerate (pip install accelerate)"
        raise CaptureError(f"--model {options.model}: cannot be loaded as a pipeline of diffusers: {error}{hint}") from error


def _diffusers(options):
    """(pipeline, call arguments)"""
    if options.tiny:
        pipe, arguments = tiny.build(options.tiny, steps=options.num_steps or 2, seed=options.seed, device=options.device)
        return pipe, arguments | _pipe_arguments(options)
    pipe = _loaded(options)
    if options.offload == "model":
        pipe.enable_model_cpu_offload(device=options.device)
    elif options.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=options.device)
    else:
        pipe.to(options.device)
    arguments = {"prompt": options.prompt, "generator": torch.Generator("cpu").manual_seed(options.seed)}
    if options.negative is not None:
        arguments["negative_prompt"] = options.negative
    if options.image:
        from PIL import Image
        arguments["image"] = Image.open(options.image).convert("RGB")
    arguments["output_type"] = "np" if options.decode else "latent"
    return pipe, arguments | _pipe_arguments(options)


def _run_diffusers(options, settings):
    pipe, arguments = _diffusers(options)
    if options.decode:
        arguments["output_type"] = "np"
    settings["attributes"] |= {"guidance": arguments.get("guidance_scale"), "height": arguments.get("height"),
                               "width": arguments.get("width"), "frames": arguments.get("num_frames")}
    with Recorder(options.out, pipe, **settings) as recorder:
        clip = pipe(**arguments)[0]
        if options.decode:
            recorder.write_frames("dense", frames_of(clip))


def frames_of(clip):
    """What pipelines of output_type `np` return, of the first batch item: uint8 [F, H, W, 3]."""
    import numpy as np
    clip = np.asarray(clip)
    clip = clip[0] if clip.ndim == 5 else clip
    return (clip.clip(0, 1) * 255).round().astype(np.uint8)


def _run_wan(options, settings):
    if not options.wan_checkpoint or not options.num_steps or options.decode:
        raise CaptureError("--wan-repo needs --wan-checkpoint DIR and --num-steps N, and knows no --decode")
    generator = wan_repo.load_text_to_video(options.wan_repo, options.wan_checkpoint, options.wan_task)
    extra = {"guide_scale": options.guidance} if options.guidance is not None else {}
    with Recorder(options.out, generator, steps_total=options.num_steps, **settings):
        generator.generate(options.prompt, size=(options.width or 1280, options.height or 720), n_prompt=options.negative or "",
                           frame_num=options.frames or 81, sampling_steps=options.num_steps, seed=options.seed, **extra)


def _tell(line):
    """Progress: one line that is written over on a terminal, plain lines otherwise."""
    running = line.startswith("step ") and sys.stderr.isatty()
    print(f"\r\x1b[K{line}" if running else line, end="" if running else "\n", file=sys.stderr, flush=True)


def run(options):
    if options.q_rows:
        raise CaptureError("--q-rows: a capture holds every query row (format 1), for plans are made from all of Q; to save "
                           "space record fewer --heads, --layers or --steps")
    grids = [tuple(int(side) for side in text.split(",")) for text in options.grid] if options.grid else None
    if grids and any(len(grid) != 3 for grid in grids):
        raise CaptureError(f"--grid {options.grid}: must be F,H,W in tokens")
    settings = dict(
        preset_name=options.preset, layers=options.layers, steps=options.steps, heads=options.heads, branch=options.branch,
        batch_items=options.batch_items, max_gb=options.max_gb, dry_run=options.dry_run, output=options.output,
        dtype=DTYPES.get(options.dtype), trim=not options.no_trim, grids=grids, text_pos=options.text_pos,
        overwrite=options.overwrite, compress=options.compress, stop_early=not options.decode,
        allow_nonfinite=options.allow_nonfinite, progress=_tell,
        attributes={"model_id": options.model or options.wan_repo or f"tiny-{options.tiny}", "prompt": options.prompt,
                    "negative_prompt": options.negative, "seed": options.seed})
    if not options.dry_run and pathlib.Path(options.out).exists() and not options.overwrite:
        raise CaptureError(f"{options.out}: exists already; choose another name or pass --overwrite")
    (_run_wan if options.wan_repo else _run_diffusers)(options, settings)
    if not options.dry_run:
        print(f"{options.out}: {pathlib.Path(options.out).stat().st_size / 1e9:.3f} GB")


def main(arguments=None):
    options = _parser().parse_args(arguments)
    with contextlib.suppress(BrokenPipeError):
        try:
            run(options)
        except (CaptureError, ModuleNotFoundError) as error:
            print(f"raingauge-capture: {error}", file=sys.stderr)
            return 1
    return 0
