# SPDX-License-Identifier: Apache-2.0
"""Text of modules with the signatures of the authors' Wan repositories, at toy size."""

STAND_IN = '''
import torch
from .attention import flash_attention

class WanSelfAttention(torch.nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(dim, dim) for _ in range(4))
        self.heads = heads

    def forward(self, x, seq_lens, grid_sizes, freqs):
        q, k, v = (f(x).unflatten(2, (self.heads, -1)) for f in (self.q, self.k, self.v))
        return self.o(flash_attention(q=q.float(), k=k.float(), v=v, k_lens=seq_lens, window_size=(-1, -1)).flatten(2).to(x.dtype))

class Block(torch.nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.self_attn, self.cross_attn = WanSelfAttention(dim, heads), WanSelfAttention(dim, heads)

    def forward(self, x, seq_lens, grid_sizes):
        x = x + self.self_attn(x, seq_lens, grid_sizes, None)
        return x + self.cross_attn(x, None, grid_sizes, None)

class WanModel(torch.nn.Module):
    def __init__(self, dim=32, num_heads=2, num_layers=2, **_):
        super().__init__()
        self.patch_size = (1, 2, 2)
        self.embed, self.head = torch.nn.Linear(64, dim), torch.nn.Linear(dim, 64)
        self.blocks = torch.nn.ModuleList(Block(dim, num_heads) for _ in range(num_layers))

    def forward(self, x, t, context, seq_len):
        c, f, h, w = x[0].shape
        grid = torch.tensor([[f, h // 2, w // 2]])
        tokens = x[0].reshape(c, f, h // 2, 2, w // 2, 2).permute(1, 2, 4, 0, 3, 5).reshape(1, -1, 4 * c)
        n = tokens.shape[1]
        y = self.embed(torch.cat([tokens, tokens.new_zeros(1, seq_len - n, 4 * c)], 1)) + context[0].mean() + t
        for block in self.blocks:
            y = block(y, torch.tensor([n]), grid)
        out = self.head(y)[:, :n]
        return [out.reshape(f, h // 2, w // 2, c, 2, 2).permute(3, 0, 1, 4, 2, 5).reshape(c, f, h, w)]
'''
ATTENTION = '''
FLASH_ATTN_2_AVAILABLE = FLASH_ATTN_3_AVAILABLE = False
def flash_attention(*args, **kwargs):
    assert FLASH_ATTN_2_AVAILABLE
'''
CONFIGS = '''
WAN_CONFIGS = {"t2v-14B": {"steps": 50}, "i2v-14B": {}}
'''
GENERATOR = '''
import torch
from .modules.model import WanModel

class WanT2V:
    def __init__(self, config, checkpoint_dir, device_id=0, **_):
        torch.manual_seed(len(checkpoint_dir))
        self.model = WanModel(dim=32, num_heads=2, num_layers=2).eval()

    def generate(self, input_prompt, size=(1280, 720), frame_num=81, shift=5.0, sample_solver="unipc", sampling_steps=50,
                 guide_scale=5.0, n_prompt="", seed=-1, offload_model=True):
        latent = torch.randn(16, (frame_num - 1) // 4 + 1, size[1] // 8, size[0] // 8, generator=torch.Generator().manual_seed(seed))
        tokens = latent.shape[1] * latent.shape[2] * latent.shape[3] // 4
        with torch.no_grad():
            for step in range(sampling_steps):
                t = torch.tensor([1000.0 * (1 - step / sampling_steps)])
                cond, uncond = (self.model([latent], t=t / 1000, context=[torch.full((5, 16), c)], seq_len=tokens)[0] for c in (1.0, -1.0))
                latent = latent - 0.1 * (uncond + guide_scale * (cond - uncond))
        return latent
'''
