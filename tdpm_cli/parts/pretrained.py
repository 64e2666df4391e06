"""Networks that were trained elsewhere, of transformers: from a local folder, or Hugging Face's hub and its cache."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.errors import InputError
from tdpm_cli.parts.embeddings import Embedded, Vectors

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a folder that transformers saved
TOKENIZER = ["tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model"]
OPTION = "condition.weights"  # that names the folder of a text encoder


class TextEncoder:
    """A text network of transformers as an encoder: the last layer's tokens [L, D], and of these `pooled` [D].

    `pooled` makes one vector of a text's tokens [L, D]; `limit` is the most tokens that it takes. The network is
    frozen, in float32 and in eval mode. Raises InputError, when it is first needed, for what cannot be loaded.
    """

    def __init__(
        self, name: str, architecture: str, hub: str, weights: Path | None, dim: int, limit: int,
        pooled: Callable[[Tensor], Tensor],
    ) -> None:  # fmt: skip
        self._given = (name, architecture, hub, weights, OPTION)
        self._pooled, self.device, self.dim, self.limit = pooled, torch.device("cpu"), dim, limit
        if weights is not None and (weights / CONFIG).is_file():
            try:
                settings = json.loads((weights / CONFIG).read_text())
            except ValueError as error:
                raise InputError(f"{weights / CONFIG}: damaged ({error})") from None
            settings = settings.get("text_config") or settings
            self.dim = int(settings.get("d_model") or settings.get("hidden_size") or dim)

    @property
    def identity(self) -> str:
        """What its vectors depend on."""
        return f"{self._given[0]} {self._loaded[2]}"

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], tokens: int) -> list[Embedded]:
        """Embed each text's first `tokens` tokens, those that mark its ends included."""
        split, network, _ = self._loaded
        lengths = [len(ids) for ids in split(list(texts))["input_ids"]]
        words = split(list(texts), padding=True, truncation=True, max_length=tokens, return_tensors="pt")
        network.to(self.device)
        hidden: Tensor = network(**words.to(self.device)).last_hidden_state.cpu()
        counts = words["attention_mask"].sum(1).tolist()
        return [
            Embedded(vectors[:count], self._pooled(vectors[:count]), length > tokens)
            for vectors, count, length in zip(hidden, counts, lengths, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.device = device

    def words(self, tokens: int, dim: int | None) -> Vectors:
        """What the condition `text` makes of texts."""
        return Vectors(self, tokens, dim)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        """Tokenizer, network, and the hash of its weights."""
        network, digest = pretrained(*self._given)
        from transformers import AutoTokenizer

        name, _, hub, weights, option = self._given
        folder = weights or cached(name, hub, option)
        try:
            split = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # OSError for missing files, others for damaged ones
            raise InputError(
                f"{folder}: the tokenizer of {name!r} is not there ({first_line(error)}); give the whole folder that "
                "transformers saved, with tokenizer.json"
            ) from None
        return split, network.requires_grad_(False), digest


def pretrained(name: str, architecture: str, hub: str, weights: Path | None, option: str) -> tuple[Any, str]:
    """The network `name`, a class of transformers, in float32; and the SHA-256 of its weights.

    It comes from the folder `weights`, which `option` names, or from `hub` where that is None; no code of theirs is
    run. Raises InputError for what cannot be loaded.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(
            f"the network {name!r} needs transformers; install it with: pip install 'tdpm-cli[transformers]'"
        ) from None
    folder = weights or cached(name, hub, option)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise InputError(f"{folder}: no {file} there; give a folder that {architecture} was saved to")
    # It reports pages of weights left out, such as CLIP's other half; what matters of that is an error below.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        network, report = getattr(transformers, architecture).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",  # or else the config may name one to download
            output_loading_info=True,
        )
    except Exception as error:  # no JSON, other shapes, a damaged file: each a class of its own
        raise InputError(f"{folder}: cannot be loaded as {architecture} ({first_line(error)})") from None
    # Of another type, or of some weights only, transformers makes a network all the same, and draws what is missing.
    kind, accepted = network.config.model_type, type(network.config).model_type
    if kind != accepted:
        raise InputError(f"{folder}: {CONFIG} is of a model of type {kind!r}; accepted: {accepted!r}")
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{folder}: {WEIGHTS} lacks {len(missing)} of the weights, such as {missing[0]}")
    return network.float().eval(), sha256(folder / WEIGHTS)


def cached(name: str, hub: str, option: str) -> Path:
    """The hub's model, and what splits texts for it, in Hugging Face's cache; downloaded where missing. Raises
    InputError if it fails."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    paths: list[Any] = [try_to_load_from_cache(hub, file) for file in (CONFIG, WEIGHTS)]
    if all(isinstance(path, str) for path in paths):
        return Path(paths[0]).parent
    try:
        HfApi().model_info(hub, timeout=10)  # without a network this fails soon; a download retries for minutes
        return Path(snapshot_download(hub, allow_patterns=[CONFIG, WEIGHTS, *TOKENIZER]))
    except Exception as error:  # OSError, or of one of the HTTP libraries that versions of the hub's client use
        raise InputError(
            f"the network {name!r} is {hub}, which is not in Hugging Face's cache and could not be downloaded "
            f"({first_line(error)}). Give a local folder by {option}, or "
            "run once with a network"
        ) from None


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def sha256(path: Path) -> str:
    """Hash of a file's content, read in pieces: weights may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
