# SPDX-License-Identifier: Apache-2.0
"""Which interceptor a source needs."""

from .hook import Interceptor
from .wan_repo import WanInterceptor, is_wan


def interceptor_for(source, handler, *, grids=None):
    """source: a diffusers pipeline, a model or generator of the Wan repositories, or any torch module."""
    return (WanInterceptor if is_wan(source) else Interceptor)(source, handler, grids=grids)
