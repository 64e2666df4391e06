"""The protocol of a score: everything that it depends on. Scores with equal protocols can be compared."""

from collections.abc import Sequence

from tdpm_cli.evaluation.examples import Examples, Input
from tdpm_cli.evaluation.results import Scores
from tdpm_cli.evaluation.scorer import Scorer, versions
from tdpm_cli.runtime.files import Json

SAMPLE_KEYS = (
    "model", "model_sha256", "weights", "trained_images", "truncation", "sampler", "options", "steps", "spacing",
    "guidance_scale", "prior_guidance_scale", "labels", "start", "nfe", "nfe_text",
)  # of samples.json  # fmt: skip


def protocol_of(scorer: Scorer, sets: Sequence[Input], results: Sequence[Scores]) -> Json:
    """Return the protocol of scores of one or several sets of samples that differ in their seed alone."""
    first = sets[0]
    manifest = first.manifest if isinstance(first, Examples) else None
    return {
        "n": results[0].n,
        "seeds": [one.manifest["seed"] for one in sets if isinstance(one, Examples) and one.manifest],
        "samples": {key: manifest.get(key) for key in SAMPLE_KEYS} if manifest else None,
        "samples_sha256": [one.sha256() for one in sets],
        "broken": list(results[0].broken),
        **scorer.protocol,
        "versions": versions(),
    }
