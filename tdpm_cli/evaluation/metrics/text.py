"""How well images fit the captions that they were drawn from."""

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.summary import Summary

__all__ = ["TextScore"]

DEFINITION = (
    "by clip: 100 · max(cos, 0) of the features of images and of their captions (Hessel 2021); by image-text: "
    "the percentage of images that find their caption among 10 (R@1); mean and standard error"
)
NEEDS = ("captions",)
DATA = "images"


class TextScore:
    """Mean alignment of images and captions, by the features that --text names. Higher is better."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return one score with its standard error, named by the features. The reference plays no part."""
        alignment = samples.alignment
        assert alignment is not None, "check_fit requires captions"
        error = float(alignment.std() / len(alignment) ** 0.5)
        return [Score(samples.alignment_name, float(alignment.double().mean()), error)]
