"""LoadedEncoder: a SentenceTransformer object that a user has loaded, or trained, themselves."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from micropref._support.cached import cached_property
from micropref._support.optional import require
from micropref.embed._model_encoder import PURPOSE
from micropref.embed.sentence import SentenceTransformerEncoder

__all__ = ["LoadedEncoder", "is_loaded_model"]

_OF_USE = ("truncation", "padding")


class LoadedEncoder(SentenceTransformerEncoder):
    """Embed texts with a loaded `SentenceTransformer`; ``encoder=model`` creates it.

    The model is shared and stays on its device, in its precision, with its own prompt and limit of tokens. The
    fingerprint has the content of its weights when it was wrapped: trained further, it is another encoder. A saved
    model of texts cannot load such an encoder by itself: pass it as ``encoder=``.

    Parameters
    ----------
    model : SentenceTransformer
    """

    def __init__(self, model: Any):
        if not is_loaded_model(model):
            raise TypeError(f"model: expected a SentenceTransformer, got a {type(model).__name__}")
        name = str(getattr(getattr(model, "model_card_data", None), "base_model", None) or "a SentenceTransformer")
        super().__init__(name)
        self.dtype = str(getattr(model, "dtype", "float32")).removeprefix("torch.")
        self.model = model
        # Read now: training it further must not make vectors of one name from two models.
        self._content = _content_of(model)

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Returns
        -------
        parameters : dict of str to object
        """
        return {"model": self.model}

    @cached_property
    def _model(self) -> Any:
        return self.model.eval()

    @cached_property
    def _identity(self) -> str:
        return self._content

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}

    def __repr__(self) -> str:
        return f"LoadedEncoder({self.model_name_or_path!r})"


def is_loaded_model(candidate: object) -> bool:
    """Whether an object is a SentenceTransformer; the package that has the class is not imported for it.

    Parameters
    ----------
    candidate : object

    Returns
    -------
    is_one : bool
    """
    return any(
        base.__name__ == "SentenceTransformer" and base.__module__.startswith("sentence_transformers.")
        for base in type(candidate).__mro__
    )


def _content_of(model: Any) -> str:
    """One hash over the modules, the weights and the tokenizer of a model."""
    torch = require("torch", PURPOSE)
    total = hashlib.sha256("+".join(type(module).__name__ for module in model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        total.update(f"{name} {flat.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(flat.view(torch.uint8).numpy().tobytes())
    fast = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if fast is not None:
        # How it cuts and pads is set anew with every use.
        described = {name: part for name, part in json.loads(fast.to_str()).items() if name not in _OF_USE}
        total.update(json.dumps(described).encode())
    return f"sha256:{total.hexdigest()}"
