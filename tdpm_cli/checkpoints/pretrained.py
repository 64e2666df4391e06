"""Pretrained networks of transformers, from a local folder or from Hugging Face's hub and its cache."""

from pathlib import Path
from typing import Any

from tdpm_cli.checkpoints.weights import check_size
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # in a folder that transformers saved
TOKENIZER = ["tokenizer*.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model"]


def pretrained(name: str, architecture: str, hub: str, weights: Path | None, option: str) -> tuple[Any, str]:
    """Load the network `name`, of a class of transformers, in float32; return it and the SHA-256 of its weights.

    It is read from the folder `weights`, which `option` names, or from `hub` if that is None. No code of a model is
    executed, and the size of the network is checked before it takes memory. Raises InputError for a network that cannot
    be loaded.
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
            raise InputError(f"{folder}: {file} not found; name a folder that {architecture} was saved to")
    # transformers would print pages about weights that are left out, such as CLIP's other half.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    network_class = getattr(transformers, architecture)
    try:
        settings = network_class.config_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind, accepted = settings.model_type, type(settings).model_type
        if kind != accepted:
            raise InputError(f"{folder}: {CONFIG} is of a model of type {kind!r}; accepted: {accepted!r}")
        check_size(folder / WEIGHTS, lambda: network_class(settings))
        network, report = network_class.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",  # otherwise the config may name an implementation to download
            output_loading_info=True,
        )
    except InputError:
        raise
    except Exception as error:  # no JSON, other shapes, a damaged file: each raises its own class
        raise InputError(f"{folder}: cannot be loaded as {architecture} ({first_line(error)})") from None
    # With missing weights, transformers returns a network of random weights.
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{folder}: {WEIGHTS} lacks {len(missing)} weights, such as {missing[0]}; save it again")
    return network.float().eval(), sha256(folder / WEIGHTS)


def cached(name: str, hub: str, option: str) -> Path:
    """Return the folder of a hub's model and tokenizer in Hugging Face's cache, downloaded if needed.

    Raises InputError if the download fails.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    config, weights = (try_to_load_from_cache(hub, file) for file in (CONFIG, WEIGHTS))
    if isinstance(config, str) and isinstance(weights, str):
        return Path(config).parent
    try:
        HfApi().model_info(hub, timeout=10)  # fails soon without a network; a download would retry for minutes
        return Path(snapshot_download(hub, allow_patterns=[CONFIG, WEIGHTS, *TOKENIZER]))
    except Exception as error:  # OSError, or an error of the HTTP library that the hub's client uses
        raise InputError(
            f"the network {name!r} is {hub}, which is not in Hugging Face's cache and could not be downloaded "
            f"({first_line(error)}). Name a local folder with {option}, or "
            "run this once with a network"
        ) from None
