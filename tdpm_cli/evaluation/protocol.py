"""What a score depends on, in full: two scores may be compared where this says the same."""

from collections.abc import Sequence
from typing import Any

from tdpm_cli.evaluation.inputs import Examples, Input
from tdpm_cli.evaluation.scorer import Found, Scorer, versions

OF_SAMPLES = ("model", "model_sha256", "weights", "trained_images", "truncation", "sampler", "options", "steps",
              "spacing", "guidance_scale", "prior_guidance_scale", "labels", "start", "nfe", "nfe_text")  # fmt: skip


def protocol_of(scorer: Scorer, sets: Sequence[Input], found: Sequence[Found]) -> dict[str, Any]:
    """The protocol of scores of one or several sets of samples, that differ in their seed alone."""
    first = sets[0]
    manifest = first.manifest if isinstance(first, Examples) else None
    return {
        "n": found[0].n,
        "seeds": [each.manifest["seed"] for each in sets if isinstance(each, Examples) and each.manifest],
        "samples": {key: manifest.get(key) for key in OF_SAMPLES} if manifest else None,
        "samples_sha256": [each.sha256() for each in sets],
        "broken": list(found[0].broken),
        **scorer.protocol,
        "versions": versions(),
    }
