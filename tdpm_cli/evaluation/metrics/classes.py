"""The distance of each class on its own."""

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.metrics.fid import frechet
from tdpm_cli.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from tdpm_cli.evaluation.moments import moments
from tdpm_cli.evaluation.summary import Summary

__all__ = ["ClassDistances"]

ALIASES = ("per_class", "per-class")
DEFINITION = "the distance of each class alone, and their mean"
NEEDS = ("all_features", "labels")


class ClassDistances:
    """Fréchet distance of the images, or sliced Wasserstein distance of the points, of each class."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return one score for each class of which both sides have at least 2 examples, in the reference's order.

        Classes are matched by name, or by label if the two sides share no name.
        """
        assert samples.labels is not None, "check_fit requires classes"
        assert reference.labels is not None, "check_fit requires classes"
        names = samples.classes if set(samples.classes) & set(reference.classes) else reference.classes
        scores = []
        for label, name in enumerate(reference.classes):
            if name not in names:
                continue
            real = reference.features[reference.labels == label]
            fake = samples.features[samples.labels == names.index(name)]
            if min(len(real), len(fake)) >= 2:
                is_image = bool(samples.feature_name)
                value = frechet(moments(fake), moments(real)) if is_image else sliced_wasserstein(fake, real)
                scores.append(Score(name, value, group="class"))
        return scores
