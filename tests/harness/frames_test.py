# SPDX-License-Identifier: Apache-2.0
"""`raingauge frames` against scikit-image and against formulas written out in numpy.

Runs the binary named by $RAINGAUGE. scikit-image is pinned in harness/setup/python.txt; where a
user's own Python without it is taken, the tests that need it say that they were skipped.
"""
import json
import os
import subprocess

import h5py
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

PROGRAM = os.environ["RAINGAUGE"]
# Double precision on both sides; measured differences are below 1e-12.
TOLERANCE = 1e-9


def run(*args, code=0):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def clips(frames=3, height=181, width=200, seed=0):
    """A smooth moving texture, and the same with errors that differ from frame to frame."""
    rng = np.random.default_rng(seed)
    t, y, x, c = np.meshgrid(*map(np.arange, (frames, height, width, 3)), indexing="ij")
    clean = 128 + 60 * np.sin((x - 2 * t) / 7 + c) + 50 * np.cos((y + x - t) / 11)
    noisy = clean * (1 - 0.1 * t) + rng.normal(0, 6 + 10 * t, clean.shape)
    return [np.clip(np.round(v), 0, 255).astype(np.uint8) for v in (clean, noisy)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    a, b = clips()
    np.save(folder / "a.npy", a)
    np.save(folder / "b.npy", b)
    return folder, a, b


@pytest.fixture(scope="module")
def scores(pair):
    folder, _, _ = pair
    return json.loads(run("frames", folder / "a.npy", folder / "b.npy", "--json").stdout)


def near(score, expected):
    np.testing.assert_allclose(score["per_frame"], expected, rtol=0, atol=TOLERANCE)
    assert abs(score["mean"] - np.mean(expected)) < TOLERANCE


def test_psnr_and_ssim_agree_with_scikit_image(pair, scores):
    skimage = pytest.importorskip("skimage.metrics")
    _, a, b = pair
    near(scores["psnr"], [skimage.peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b)])
    # Float images: of 8-bit ones, scikit-image 0.26 computes SSIM in single precision.
    a, b = a.astype(float), b.astype(float)
    near(scores["ssim_uniform7"],
         [skimage.structural_similarity(x, y, data_range=255, channel_axis=-1) for x, y in zip(a, b)])
    gauss = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    near(scores["ssim_gauss11"], [skimage.structural_similarity(
        x, y, data_range=255, channel_axis=-1, **gauss) for x, y in zip(a, b)])


def test_both_means_of_psnr(pair, scores):
    _, a, b = pair
    mse = np.mean((a.astype(float) - b) ** 2, axis=(1, 2, 3))
    near(scores["psnr"], 10 * np.log10(255 ** 2 / mse))
    assert abs(scores["psnr_mse"]["mean"] - 10 * np.log10(255 ** 2 / mse.mean())) < TOLERANCE
    assert scores["psnr_mse"]["mean"] < scores["psnr"]["mean"] - 0.1


def window_means(plane, weights):
    """Weighted mean over every 11 x 11 window inside the plane."""
    return np.einsum("yxij,ij->yx", sliding_window_view(plane, weights.shape), weights)


def ssim_maps(x, y, weights):
    """SSIM and its contrast-structure factor, population covariance, values in [0, 1]."""
    c1, c2 = 0.01 ** 2, 0.03 ** 2
    mx, my = window_means(x, weights), window_means(y, weights)
    sxx = window_means(x * x, weights) - mx ** 2
    syy = window_means(y * y, weights) - my ** 2
    sxy = window_means(x * y, weights) - mx * my
    structure = (2 * sxy + c2) / (sxx + syy + c2)
    return (2 * mx * my + c1) / (mx ** 2 + my ** 2 + c1) * structure, structure


def test_zero_padded_ssim(pair, scores):
    _, a, b = pair
    weights = np.full((11, 11), 1 / 121)

    def of_frame(x, y):
        maps = [ssim_maps(np.pad(x[..., c] / 255, 5), np.pad(y[..., c] / 255, 5), weights)[0]
                for c in range(3)]
        assert maps[0].shape == x.shape[:2]
        return np.mean(maps)

    near(scores["ssim_uniform11_zeropad"], [of_frame(x, y) for x, y in zip(a, b)])


def ms_ssim(x, y):
    axis = np.arange(11) - 5
    line = np.exp(-axis ** 2 / (2 * 1.5 ** 2))
    weights = np.outer(line, line) / line.sum() ** 2
    result = 1.0
    exponents = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    for scale, exponent in enumerate(exponents):
        ssim, structure = ssim_maps(x, y, weights)
        result *= max(0.0, (ssim if scale == 4 else structure).mean()) ** exponent
        if scale < 4:
            x, y = (np.pad(v, [(0, n % 2) for n in v.shape], mode="edge") for v in (x, y))
            x, y = (v.reshape(v.shape[0] // 2, 2, v.shape[1] // 2, 2).mean(axis=(1, 3)) for v in (x, y))
    return result


def test_multi_scale_ssim(pair, scores):
    _, a, b = pair
    assert a.shape[1] % 2 == 1  # 181 -> 91 -> 46 -> 23 -> 12: odd sides at three scales
    near(scores["ms_ssim"], [np.mean([ms_ssim(x[..., c] / 255, y[..., c] / 255) for c in range(3)])
                             for x, y in zip(a, b)])


def test_flicker(pair, scores):
    _, a, b = pair
    for clip, score in ((b, scores["flicker"]), (a, scores["flicker"]["reference"])):
        near(score, 1 - np.abs(np.diff(clip.astype(float), axis=0)).mean(axis=(1, 2, 3)) / 255)


def test_worst_patch_and_its_picture(pair, tmp_path):
    folder, a, _ = pair
    b = a.copy()
    b[2, 50:82, 100:132] ^= 16
    b[1, 3, 3] ^= 1
    np.save(tmp_path / "b.npy", b)
    out = ["--worst", tmp_path / "worst.png"]
    done = run("frames", folder / "a.npy", tmp_path / "b.npy", "--metrics", "psnr_worst_patch,psnr",
               "--json", *out)
    score = json.loads(done.stdout)["psnr_worst_patch"]
    mse = np.mean((a[2, 50:82, 100:132].astype(float) - b[2, 50:82, 100:132]) ** 2)
    assert score["worst"]["frame"] == 2
    assert score["worst"]["patch"] == {"x": 100, "y": 50, "width": 32, "height": 32}
    assert abs(score["worst"]["value"] - 10 * np.log10(255 ** 2 / mse)) < TOLERANCE
    assert score["infinite"] == 1 and score["identical"] == 1 and score["per_frame"][0] is None
    picture = (tmp_path / "worst.png").read_bytes()
    width, height = (int.from_bytes(picture[i:i + 4], "big") for i in (16, 20))
    assert (width, height) == (3 * 128 + 2 * 4, 128)


def test_identical_clips_are_counted_never_dropped(pair):
    folder, a, _ = pair
    scores = json.loads(run("frames", folder / "a.npy", folder / "a.npy", "--json").stdout)
    for name, score in scores.items():
        assert score["identical"] == len(a), name
        assert score["undefined"] == 0, name
        finite = sum(value is not None for value in score["per_frame"])
        assert finite + score["infinite"] == len(score["per_frame"]) or score["reason"], name
    assert scores["psnr"]["mean"] is None and scores["psnr"]["infinite"] == len(a)
    assert scores["psnr"]["worst"] is None
    assert "infinite" in run("frames", folder / "a.npy", folder / "a.npy").stdout
    done = run("frames", folder / "a.npy", folder / "a.npy", "--worst", folder / "w.png", code=1)
    assert "identical" in done.stderr


def test_what_does_not_apply_says_why(tmp_path):
    a, b = clips(frames=1, height=20, width=30)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    scores = json.loads(run("frames", tmp_path / "a.npy", tmp_path / "b.npy", "--json").stdout)
    assert scores["psnr"]["reason"] == ""
    assert "at least 161 pixels" in scores["ms_ssim"]["reason"] and scores["ms_ssim"]["mean"] is None
    assert "at least 2" in scores["flicker"]["reason"]
    text = run("frames", tmp_path / "a.npy", tmp_path / "b.npy").stdout
    assert "n/a: ms_ssim" in text and "20" in text
    done = run("frames", tmp_path / "a.npy", tmp_path / "b.npy", "--metrics", "psnr,ms_ssim", code=1)
    assert "ms_ssim: frames of 30x20 are too small; it needs at least 161" in done.stderr


@pytest.mark.parametrize("options, words", [
    (["--metrics", "pnsr"], ["pnsr", "Known", "psnr"]),
    (["--flow", "fastflownet"], ["fastflownet", "dis", "not ported"]),
    (["--fps", "-1"], ["(0, 1000]"]),
])
def test_bad_options_are_refused(pair, options, words):
    folder, _, _ = pair
    done = run("frames", folder / "a.npy", folder / "b.npy", *options, code=1)
    assert all(word in done.stderr for word in words), done.stderr


def test_bad_clips_are_refused(pair, tmp_path):
    folder, a, _ = pair
    np.save(tmp_path / "short.npy", a[:2])
    np.save(tmp_path / "floats.npy", np.full(a.shape, np.nan, dtype=np.float32))
    for name, words in (("short.npy", ["3 frames of 200x181", "2 frames of 200x181"]),
                        ("floats.npy", ["floats.npy", "uint8"])):
        done = run("frames", folder / "a.npy", tmp_path / name, code=1)
        assert all(word in done.stderr for word in words), done.stderr


def test_frames_of_captures(pair, scores, tmp_path):
    """FILE.h5:/frames/ARM gives the numbers of the same frames in .npy."""
    folder, _, b = pair
    run("capture", "synth", "{grid: [1, 4, 4], heads: 1, head_dim: 16, layers: 1, steps: 1}", "--out",
        tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file.create_dataset("frames/arm", data=b)
    for name in ("c.h5", "c.h5:/frames/arm"):
        done = run("frames", folder / "a.npy", f"{tmp_path / name}", "--metrics", "psnr,flicker", "--json")
        assert json.loads(done.stdout) == {key: scores[key] for key in ("psnr", "flicker")}
        assert done.stderr == ""


def warned(reference, test, words):
    done = run("frames", reference, test, "--metrics", "psnr,flicker", "--json")
    assert done.stderr.count("warning") == 1 and words in done.stderr, done.stderr
    return json.loads(done.stdout)  # the warning does not mix with the numbers


def test_y4m_is_read_and_warned_about(tmp_path):
    """4:4:4, limited range, BT.601, written out in numpy."""
    planes = np.random.default_rng(3).integers(16, 236, (4, 3, 9, 14), dtype=np.uint8)
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W14 H9 F25:1 Ip C444\n" + b"".join(
        b"FRAME\n" + frame.tobytes() for frame in planes))
    y, cb, cr = np.moveaxis(planes.astype(float), 1, 0)
    y, cb, cr = (y - 16) * 255 / 219, (cb - 128) * 255 / 224, (cr - 128) * 255 / 224
    rgb = [y + 1.402 * cr, y - (0.114 * 1.772 * cb + 0.299 * 1.402 * cr) / 0.587, y + 1.772 * cb]
    np.save(tmp_path / "a.npy", np.clip(np.round(np.stack(rgb, -1)), 0, 255).astype(np.uint8))
    scores = warned(tmp_path / "a.npy", tmp_path / "a.y4m", "Y4M, Y'CbCr 4:4:4")
    assert scores["psnr"]["identical"] == 4


def test_mp4_is_read_and_warned_about(tmp_path):
    arm = ["--arm", "{method: dense}", "--grid", "3,8,8", "--steps", "1"]
    for name in ("a.npy", "a.mp4"):
        made = subprocess.run([PROGRAM, "generate", *arm, "--out", tmp_path / name], capture_output=True,
                              text=True, timeout=300)
        if made.returncode and ("libtorch" in made.stderr or "OpenCV" in made.stderr):
            pytest.skip(made.stderr.strip())
        assert made.returncode == 0, made.stderr
    scores = warned(tmp_path / "a.npy", tmp_path / "a.mp4", "MP4, codec")
    # The codec's own error is finite: without the warning it would be taken for the model's.
    assert 20 < scores["psnr"]["mean"] < 60 and scores["psnr"]["identical"] == 0


def test_explain_gives_the_recipe():
    for name, words in (("ssim_gauss11", ["C1 = (0.01 255)^2"]), ("ms_ssim", ["0.0448", "161"]),
                        ("warp_error", ["occlu", "DIS"]), ("dynamic_degree", ["6 min(H, W) / 256"])):
        text = run("explain", name).stdout
        assert all(word in text for word in words), text
