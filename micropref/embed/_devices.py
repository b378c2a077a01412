"""Which GPU an encoder takes where several processes embed."""

from __future__ import annotations

import os

from micropref._support.optional import require
from micropref.distributed import launched
from micropref.embed._model_encoder import PURPOSE, ModelEncoder
from micropref.embed.protocol import Encoder

__all__ = ["on_own_device"]


def on_own_device(encoder: Encoder) -> Encoder:
    """The encoder; of the processes that torchrun started, each takes a GPU of its own where there are several.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    Encoder
        The same one where one process is alone, the encoder has a device already, or runs no model of torch.
    """
    has_choice = isinstance(encoder, ModelEncoder) and encoder.device is None
    if launched()[1] == 1 or not has_choice or getattr(encoder, "backend", "torch") != "torch":
        return encoder
    assert isinstance(encoder, ModelEncoder)
    torch = require("torch", PURPOSE)
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n_devices:
        return encoder
    device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % n_devices}"
    return type(encoder)(**{**encoder.get_params(), "device": device})
