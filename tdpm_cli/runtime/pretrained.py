"""Networks that were trained elsewhere, of transformers: from a local folder, or Hugging Face's hub and its cache."""

from pathlib import Path
from typing import Any

from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a folder that transformers saved
TOKENIZER = ["tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model"]


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
