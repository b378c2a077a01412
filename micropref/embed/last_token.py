"""LastTokenEncoder: the last token's hidden state of a causal reward model, under its chat template."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from micropref._support.cached import cached_property
from micropref._support.optional import require
from micropref.embed._forward import count_cut, forward, is_padded_transformer
from micropref.embed._model_encoder import PURPOSE, ModelEncoder, named, only_bad_news

__all__ = ["EXCHANGE_TEMPLATE", "SEPARATOR", "LastTokenEncoder"]

# U+001E, the record separator: no text holds it by chance.
SEPARATOR = "\x1e"
EXCHANGE_TEMPLATE = f"{{prompt}}{SEPARATOR}{{response}}"
# Templates of the Llama family write down today's date, which would change vectors every day. A macro hides the clock:
# for it, it is the day that these templates name where there is no clock.
_DATE = {"%d": "26", "%m": "07", "%b": "Jul", "%B": "July", "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday"}
_TIME = dict.fromkeys(("%H", "%M", "%S"), "00")
_REPLACED = "".join(f".replace('{directive}', '{value}')" for directive, value in (_DATE | _TIME).items())
_STOPPED_CLOCK = f"{{%- macro strftime_now(format) -%}}{{{{ format{_REPLACED} }}}}{{%- endmacro %}}\n"


class LastTokenEncoder(ModelEncoder):
    """Embed exchanges as reward models read them; needs ``pip install 'micropref[embed]'``.

    The vector is the hidden state of the last token in the last layer, after the final norm: what a reward model's
    score is a linear function of. MiCRo, LoRe and DRMs learn their heads on it.

    A text is an exchange: a prompt, `SEPARATOR` (U+001E) and a response, which become the messages of a user and of
    an assistant under the chat template. Only the first separator counts. A text without one is a single message of
    the user. So that a `PairEncoder` gives whole exchanges::

        PairEncoder(LastTokenEncoder("Ray2333/GRM-Llama3.2-3B-rewardmodel-ft"), template=EXCHANGE_TEMPLATE)

    Parameters
    ----------
    model_name_or_path : str
        A name on the Hugging Face hub or a folder, of a causal model with or without a score head, which is ignored.
    revision : str, optional
        Branch, tag or commit on the hub. Without it the newest one is taken; the fingerprint has its commit.
    chat : bool, default=True
        False reads a text as it is: no template, no separator, the special tokens that the tokenizer adds.
    chat_template : str, optional
        Jinja source used instead of the model's own template.
    truncate_dim : int, optional
        Keep only the first so many dimensions.
    max_length : int, optional
        Tokens that are read. By default the model's own limit. Of a longer text the beginning is cut, since the last
        token must stay.
    normalize : bool, default=False
        Scale vectors to length 1.
    device : str, optional
        Such as ``"cpu"`` or ``"cuda:1"``; by default a GPU where there is one.
    batch_size : int, default=8
        Texts in one pass. Texts are sorted by tokens first, so that a batch holds little padding.
    trust_remote_code : bool, default=False
        Whether code that comes with the model may run. Without it, a model that needs such code is an error.
    dtype : {"bfloat16", "float16", "float32"}, default="bfloat16"
        Precision of the computation; vectors are float32 in any case.
    show_progress : bool, optional
        Whether `encode` shows a bar when standard error is a terminal. By default for 2 000 texts or more.

    Attributes
    ----------
    n_truncated_ : int
        Texts of the last `encode` that were longer than the model reads.
    n_truncated_total_ : int
        The same, over all calls.

    Notes
    -----
    Padding goes behind the texts, where a causal model never looks, whatever the tokenizer was saved with. A vector
    depends on the batch in which it was computed by rounding only: about 1e-6 of its length in float32, 1e-2 in half
    precision. A template that asks for the date gets 26 July 2024, so that a text has one vector.

    Weights are read from safetensors where a model has them. Others are pickles, of which torch reads nothing but
    tensors (``weights_only=True``): no code in them runs.
    """

    chat: bool
    chat_template: str | None

    def __init__(
        self,
        model_name_or_path: str,
        *,
        revision: str | None = None,
        chat: bool = True,
        chat_template: str | None = None,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        normalize: bool = False,
        device: str | None = None,
        batch_size: int = 8,
        trust_remote_code: bool = False,
        dtype: str = "bfloat16",
        show_progress: bool | None = None,
    ):
        if chat_template is not None and not chat:
            raise ValueError("expected a chat_template or chat=False, got both")
        self._set(
            model_name_or_path=model_name_or_path,
            revision=revision,
            chat=chat,
            chat_template=chat_template,
            truncate_dim=truncate_dim,
            max_length=max_length,
            normalize=normalize,
            device=device,
            batch_size=batch_size,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            show_progress=show_progress,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Names the model by content or commit, and every parameter that changes vectors. Loads the model."""
        template = self._template
        return named(
            "last-token",
            {
                "model": self._identity,
                "pooling": "lasttoken",
                "template": template and f"sha256:{hashlib.sha256(template.encode()).hexdigest()}",
                "max_length": self._max_length,
                "truncation": "left",
                "dtype": self.dtype,
                "normalize": self.normalize,
                "dimension": self._dimension,
            },
        )

    def _load(self, sentence_transformers: Any) -> Any:
        torch = require("torch", PURPOSE)
        modules = require("sentence_transformers.sentence_transformer.modules", PURPOSE)
        # Vectors of plain text: the template is filled in here, and what is cut must be the beginning.
        with only_bad_news(self.model_name_or_path):
            transformer = modules.Transformer(
                self.model_name_or_path,
                model_kwargs={"dtype": getattr(torch, self.dtype), **self._hub},
                processor_kwargs=dict(self._hub),
                config_kwargs=dict(self._hub),
                processing_kwargs={"text": {"add_special_tokens": not self.chat}},
                modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
                module_output_name="token_embeddings",
            )
        tokenizer = transformer.tokenizer
        tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
        if tokenizer.pad_token is None:
            # Any token does: the model never looks at what stands behind a text.
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        pooling = modules.Pooling(transformer.get_embedding_dimension(), "lasttoken")
        model = sentence_transformers.SentenceTransformer(
            modules=[transformer, pooling], device=self.device, truncate_dim=self.truncate_dim
        )
        if not is_padded_transformer(model):
            raise ValueError(
                f"{self.model_name_or_path}: expected a fast tokenizer and a model that reads padded batches of text, "
                "got a model that lacks one of them"
            )
        return model

    @property
    def _template(self) -> str | None:
        if not self.chat:
            return None
        template = self.chat_template or self._model.tokenizer.chat_template
        if not isinstance(template, str):
            raise ValueError(
                f"expected one chat template in {self.model_name_or_path}, got {'several' if template else 'none'}: "
                "give chat_template=, or chat=False for plain text"
            )
        return _STOPPED_CLOCK + template

    def _embed(self, texts: list[str], advance: Callable[[int], object]) -> tuple[np.ndarray, int]:
        return forward(self._model, texts, self._tokenize(), self.batch_size, advance)

    def _count_truncated(self, texts: list[str]) -> int:
        return count_cut(texts, self._tokenize())

    def _tokenize(self) -> Callable[[list[str]], Any]:
        model, template = self._model, self._template
        return lambda chunk: model.preprocess(chunk if template is None else self._render(chunk, template))

    def _render(self, texts: list[str], template: str) -> list[str]:
        rendered: list[str] = self._model.tokenizer.apply_chat_template(
            [_messages(text) for text in texts], chat_template=template, tokenize=False
        )
        return rendered


def _messages(text: str) -> list[dict[str, str]]:
    prompt, separator, response = text.partition(SEPARATOR)
    messages = [{"role": "user", "content": prompt}]
    return [*messages, {"role": "assistant", "content": response}] if separator else messages
