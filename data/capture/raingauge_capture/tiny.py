# SPDX-License-Identifier: Apache-2.0
"""Ten pipelines of diffusers at toy size with seeded random weights: no download, seconds on a CPU.

`build(name)` gives (pipeline, keyword arguments of its call). They have the structure that matters to
a capture: where text stands, which call path attention takes, masks, guidance branches, experts.
"""

import torch

NAMES = ("wan", "wan22", "hunyuan", "hunyuan15", "cogvideox", "mochi", "ltx", "qwen", "flux", "sd3")


def _randn(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _mask(length, valid):
    return (torch.arange(length) < valid)[None]


def _flow(**options):
    from diffusers import FlowMatchEulerDiscreteScheduler
    return FlowMatchEulerDiscreteScheduler(**options)


def _wan_transformer(head_dim):
    from diffusers import WanTransformer3DModel
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=head_dim, in_channels=16,
        out_channels=16, text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=32)


def _wan(experts, head_dim):
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                           temperal_downsample=[False, True, True])
    parts = {"transformer": _wan_transformer(head_dim)}
    if experts == 2:
        parts |= {"transformer_2": _wan_transformer(head_dim), "boundary_ratio": 0.875}
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True,
                                        flow_shift=3.0)
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, **parts)
    return pipe, dict(prompt_embeds=_randn(1, 16, 32, seed=1), height=112, width=144, num_frames=9,
                      negative_prompt_embeds=_randn(1, 16, 32, seed=2), guidance_scale=5.0)


def _hunyuan(head_dim):
    from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
    axes = {10: (2, 4, 4), 64: (16, 24, 24)}[head_dim]
    model = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=head_dim,
        num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1,
        guidance_embeds=True, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=axes)
    pipe = HunyuanVideoPipeline(text_encoder=None, tokenizer=None, transformer=model, vae=None,
                                scheduler=_flow(shift=7.0), text_encoder_2=None, tokenizer_2=None)
    return pipe, dict(prompt_embeds=_randn(1, 16, 16, seed=1), prompt_attention_mask=_mask(16, 11),
                      pooled_prompt_embeds=_randn(1, 8, seed=2), height=64, width=80, num_frames=9,
                      guidance_scale=6.0)


def _hunyuan15(head_dim):
    from diffusers import (AutoencoderKLHunyuanVideo15, ClassifierFreeGuidance,
                           HunyuanVideo15Pipeline, HunyuanVideo15Transformer3DModel)
    axes = {8: (2, 2, 4), 64: (16, 24, 24)}[head_dim]
    model = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=head_dim,
        num_layers=1, num_refiner_layers=1, mlp_ratio=2.0, patch_size=1, patch_size_t=1,
        text_embed_dim=16, text_embed_2_dim=32, image_embed_dim=12, rope_axes_dim=axes,
        target_size=16, task_type="t2v")
    vae = AutoencoderKLHunyuanVideo15(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16),
        layers_per_block=1, spatial_compression_ratio=4, temporal_compression_ratio=2,
        downsample_match_channel=False, upsample_match_channel=False)
    pipe = HunyuanVideo15Pipeline(
        text_encoder=None, tokenizer=None, transformer=model, vae=vae, scheduler=_flow(shift=7.0),
        text_encoder_2=None, tokenizer_2=None, guider=ClassifierFreeGuidance(6.0))
    text = {}
    for prefix, seed, valid in (("", 1, 13), ("negative_", 5, 7)):
        text |= {f"{prefix}prompt_embeds": _randn(1, 20, 16, seed=seed),
                 f"{prefix}prompt_embeds_mask": _mask(20, valid),
                 f"{prefix}prompt_embeds_2": _randn(1, 6, 32, seed=seed + 1),
                 f"{prefix}prompt_embeds_mask_2": _mask(6, 4)}
    return pipe, dict(height=28, width=36, num_frames=7, **text)


def _cogvideox(head_dim):
    from diffusers import (AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline,
                           CogVideoXTransformer3DModel)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=head_dim, in_channels=4, out_channels=4,
        time_embed_dim=2, text_embed_dim=32, num_layers=2, sample_width=18, sample_height=14,
        sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16)
    vae = AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4, block_out_channels=(8, 8, 8, 8),
        latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4)
    pipe = CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=vae, transformer=model,
                             scheduler=CogVideoXDDIMScheduler())
    return pipe, dict(prompt_embeds=_randn(1, 16, 32, seed=1), height=112, width=144, num_frames=9,
                      negative_prompt_embeds=_randn(1, 16, 32, seed=2), guidance_scale=6.0)


def _mochi(head_dim):
    from diffusers import MochiPipeline, MochiTransformer3DModel
    model = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=head_dim, num_layers=2,
        pooled_projection_dim=16, in_channels=12, text_embed_dim=32, time_embed_dim=4,
        activation_fn="swiglu", max_sequence_length=16)
    pipe = MochiPipeline(scheduler=_flow(invert_sigmas=True), vae=None, text_encoder=None,
                         tokenizer=None, transformer=model)
    return pipe, dict(prompt_embeds=_randn(1, 16, 32, seed=1), prompt_attention_mask=_mask(16, 13),
                      negative_prompt_embeds=_randn(1, 16, 32, seed=2), height=112, width=144,
                      negative_prompt_attention_mask=_mask(16, 6), num_frames=13, guidance_scale=4.5)


def _ltx(head_dim):
    from diffusers import LTXPipeline, LTXVideoTransformer3DModel
    model = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4,
        attention_head_dim=head_dim, cross_attention_dim=4 * head_dim, num_layers=2,
        caption_channels=32, qk_norm="rms_norm_across_heads")
    pipe = LTXPipeline(scheduler=_flow(), vae=None, text_encoder=None, tokenizer=None,
                       transformer=model)
    return pipe, dict(prompt_embeds=_randn(1, 16, 32, seed=1), prompt_attention_mask=_mask(16, 12),
                      negative_prompt_embeds=_randn(1, 16, 32, seed=2), height=224, width=288,
                      negative_prompt_attention_mask=_mask(16, 9), num_frames=25, guidance_scale=3.0)


def _qwen(head_dim):
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel
    axes = {16: (8, 4, 4), 64: (16, 24, 24)}[head_dim]
    model = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=head_dim,
        num_attention_heads=3, joint_attention_dim=16, axes_dims_rope=axes)
    pipe = QwenImagePipeline(scheduler=_flow(), vae=None, text_encoder=None, tokenizer=None,
                             transformer=model)
    ones = torch.ones(1, 12, dtype=torch.long)
    return pipe, dict(prompt_embeds=_randn(1, 12, 16, seed=1), prompt_embeds_mask=ones, height=208,
                      negative_prompt_embeds=_randn(1, 5, 16, seed=2), width=288,
                      negative_prompt_embeds_mask=ones[:, :5], true_cfg_scale=4.0)


def _flux(head_dim):
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
    axes = {16: (4, 4, 8), 64: (16, 24, 24)}[head_dim]
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=head_dim,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=axes,
        guidance_embeds=True)
    vae = AutoencoderKL(sample_size=32, in_channels=3, out_channels=3, block_out_channels=(4,),
                        layers_per_block=1, latent_channels=1, norm_num_groups=1,
                        use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609,
                        scaling_factor=1.5035)
    pipe = FluxPipeline(scheduler=_flow(), vae=vae, text_encoder=None, tokenizer=None,
                        text_encoder_2=None, tokenizer_2=None, transformer=model)
    return pipe, dict(prompt_embeds=_randn(1, 20, 32, seed=1), height=26, width=36,
                      pooled_prompt_embeds=_randn(1, 32, seed=2), guidance_scale=3.5)


def _sd3(head_dim):
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    model = SD3Transformer2DModel(
        sample_size=32, patch_size=1, in_channels=4, out_channels=4, num_layers=4, num_attention_heads=4,
        attention_head_dim=head_dim, caption_projection_dim=4 * head_dim, joint_attention_dim=32,
        pooled_projection_dim=64, qk_norm="rms_norm", dual_attention_layers=(0,), pos_embed_max_size=96)
    pipe = StableDiffusion3Pipeline(
        transformer=model, scheduler=_flow(), vae=None, text_encoder=None, tokenizer=None,
        text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None)
    return pipe, dict(prompt_embeds=_randn(1, 15, 32, seed=1), height=104, width=144,
                      negative_prompt_embeds=_randn(1, 15, 32, seed=2), guidance_scale=7.0,
                      pooled_prompt_embeds=_randn(1, 64, seed=3),
                      negative_pooled_prompt_embeds=_randn(1, 64, seed=4))


_BUILDERS = {
    "wan": (lambda d: _wan(1, d), 12), "wan22": (lambda d: _wan(2, d), 12), "hunyuan": (_hunyuan, 10),
    "hunyuan15": (_hunyuan15, 8), "cogvideox": (_cogvideox, 8), "mochi": (_mochi, 8), "ltx": (_ltx, 8),
    "qwen": (_qwen, 16), "flux": (_flux, 16), "sd3": (_sd3, 8)}


def build(name, *, steps=2, seed=0, head_dim=None, dtype=torch.float32, device="cpu"):
    """(pipeline, call arguments) of one of NAMES; the call makes latents unless told otherwise.

    head_dim: the diffusers tests' own sizes (8 to 16) by default; 64 suits GPU kernels.
    """
    if name not in _BUILDERS:
        raise ValueError(f"no tiny pipeline `{name}`; there are: {', '.join(NAMES)}")
    make, usual = _BUILDERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe, arguments = make(head_dim or usual)
    pipe.set_progress_bar_config(disable=True)
    if dtype != torch.float32 or device != "cpu":
        pipe.to(device, dtype)
    arguments = {key: value.to(device, dtype if value.is_floating_point() else None)
                 if torch.is_tensor(value) else value for key, value in arguments.items()}
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipe, dict(arguments, num_inference_steps=steps, output_type="latent", generator=generator)
