"""Each metric's mathematics against closed forms, hand calculations and other libraries; one section a file."""

import numpy as np
import pytest
import torch
from helpers import score
from scipy import linalg, stats

from tdpm_cli.config import registry
from tdpm_cli.evaluation.metric import load_metric, load_metrics
from tdpm_cli.evaluation.metrics.classes import ClassDistances
from tdpm_cli.evaluation.metrics.fid import distance_name, frechet
from tdpm_cli.evaluation.metrics.kid import KernelDistance, kernel_distance
from tdpm_cli.evaluation.metrics.memorised import Memorised, memorised
from tdpm_cli.evaluation.metrics.prdc import prdc
from tdpm_cli.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from tdpm_cli.evaluation.metrics.text import TextScore
from tdpm_cli.evaluation.moments import Moments, moments
from tdpm_cli.evaluation.neighbours import nearest
from tdpm_cli.evaluation.summary import Summary, SummaryBuilder
from tdpm_cli.runtime.errors import InputError


def summary_of(features, **fields):
    """A Summary of features [N, D]."""
    return Summary(len(features), *moments(features), features, torch.arange(len(features)), **fields)


# All metrics


@pytest.mark.parametrize("name", registry.names("metric"))
def test_every_metric_states_its_definition_and_its_needs(name):
    metric = load_metric(name)
    assert metric.definition
    assert metric.needs <= {"moments", "features", "all_features", "labels", "captions", "images"}
    assert metric.data in (None, "images", "points")
    assert callable(metric.compute)


def test_metrics_are_loaded_once_by_name_or_alias():
    assert [metric.name for metric in load_metrics(["kid", "per-class", "memorized", "classes", "kid"])] == [
        "kid", "classes", "memorised",
    ]  # fmt: skip


def test_an_unknown_metric_gets_the_nearest():
    with pytest.raises(InputError, match=r"--metrics is 'kdi'.*'kid'"):
        load_metrics(["kdi"])


NEW_METRIC = """
'''Mean brightness of the samples less that of the reference.'''

from tdpm_cli.evaluation.metric import Score

__all__ = ["Brightness"]

DEFINITION = "difference of mean brightness"
NEEDS = ("images", "moments")
DATA = "images"


class Brightness:
    def __call__(self, samples, reference):
        mean = lambda side: float(side.images.double().mean())
        return [Score("brightness", mean(samples) - mean(reference))]
"""


def test_a_metric_is_one_file(runs, tmp_path, pooled, monkeypatch):
    package = registry._package("metric")
    monkeypatch.setattr(package, "__path__", [*package.__path__])
    (tmp_path / "brightness.py").write_text(NEW_METRIC)
    registry.add_folder("metric", tmp_path)
    assert "brightness" in registry.names("metric")
    for _ in range(2):  # the second time with the reference from the cache
        result = score(model=runs["images"], n=30, features=pooled, metrics=["brightness"])
        assert abs(result["scores"]["brightness"]) > 1
        assert "difference of mean brightness" in result["protocol"]["definitions"]
    with pytest.raises(InputError, match=r"brightness.*points"):
        score(model=runs["points"], n=30, metrics=["brightness"])


# moments (shared)


def test_moments_in_batches_are_moments_at_once(generator):
    x = 1e4 + torch.randn(100, 7, generator=generator)
    seen = Moments()
    for batch in x.split([1, 49, 50]):
        seen.update(batch)
    mean, covariance = seen.result()
    assert torch.allclose(mean, x.double().mean(0), rtol=1e-12)
    assert np.allclose(covariance.numpy(), np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)
    with pytest.raises(ValueError, match=r"1 of 2 .*NaN"):
        seen.update(torch.tensor([[0.0] * 7, [float("nan")] * 7]))


def test_the_memory_of_moments_does_not_grow_with_their_number():
    gathering = SummaryBuilder(10_000, keep=0)
    for start in range(0, 10_000, 500):
        gathering.update(torch.arange(start, start + 500), torch.randn(500, 8), None)
    result = gathering.summary()
    assert result.count == 10_000
    assert result.features.numel() == 0


# neighbours (shared)


def test_nearest_neighbours_by_hand():
    x = torch.tensor([[0.0], [1.0], [10.0]])
    distance, index = nearest(x, x, same=True)
    assert distance[:, 0].tolist() == [1, 1, 9]
    assert index[:, 0].tolist() == [1, 0, 1]
    assert nearest(torch.tensor([[9.0]]), x, k=2)[1].tolist() == [[2, 1]]


# fid


def test_frechet_of_gaussians_in_one_dimension_is_exact():
    one, two = (torch.tensor([1.0]), torch.tensor([[4.0]])), (torch.tensor([3.0]), torch.tensor([[9.0]]))
    one, two = [tuple(x.double() for x in pair) for pair in (one, two)]
    assert frechet(one, two) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2)
    assert frechet(one, one) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [50, 400])  # fewer examples than dimensions, and more
def test_frechet_agrees_with_the_matrix_square_root(n, generator):
    a, b = (
        torch.randn(n, 80, generator=generator),
        torch.randn(n, 80, generator=generator) @ torch.randn(80, 80),
    )
    first, second = moments(a), moments(b)
    assert np.allclose(first[1].numpy(), np.cov(a.double().numpy(), rowvar=False))
    root = linalg.sqrtm((first[1] @ second[1]).numpy()).real
    expected = float((first[0] - second[0]).square().sum() + first[1].trace() + second[1].trace()) - 2 * root.trace()
    assert frechet(first, second) == pytest.approx(expected, rel=1e-4)


def test_frechet_of_a_sample_with_itself_is_zero_at_any_rank(generator):
    for n in (5, 300):
        pair = moments(torch.randn(n, 64, generator=generator))
        assert frechet(pair, pair) == pytest.approx(0, abs=1e-6)


def test_frechet_of_shifted_and_scaled_gaussians_has_a_closed_form(generator):
    mean, covariance = moments(torch.randn(200, 30, generator=generator))
    shift = torch.randn(30, generator=generator).double()
    assert frechet((mean, covariance), (mean + shift, covariance)) == pytest.approx(float(shift.square().sum()))
    expected = float((3 - 1) ** 2 * covariance.trace())
    assert frechet((mean, covariance), (mean, 9 * covariance)) == pytest.approx(expected)


def test_the_distance_does_not_need_pytorchs_lapack_to_converge(monkeypatch, generator):
    first, second = (moments(torch.randn(6, 64, generator=generator)) for _ in range(2))
    expected = frechet(first, second)

    def gives_up(matrix):
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    assert frechet(first, second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("features", "n", "name"),
    [
        ("inception", 50_000, "FID"),
        ("inception", 60_000, "FID"),
        ("inception", 10_000, "FID-10k"),
        ("inception", 1_234, "FID-1234"),
        ("dinov2", 50_000, "FD-dinov2"),
        ("dinov2", 0, "FD-dinov2, n unknown"),
    ],
)
def test_a_distance_is_named_fid_only_for_the_published_setting(features, n, name):
    assert distance_name(features, n) == name


# sliced_wasserstein


def test_sliced_wasserstein_of_shifted_and_scaled_samples():
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    # A shift by d moves a projection by d·w; the mean of (d·w)² over unit directions in 2-D is |d|²/2.
    shift = torch.tensor([3.0, 4.0])
    assert sliced_wasserstein(x, x + shift) == pytest.approx(5 / 2**0.5, rel=0.05)
    assert sliced_wasserstein(x, x) == 0
    assert sliced_wasserstein(x, 2 * x) == pytest.approx(float(x.square().sum(1).mean() / 2) ** 0.5, rel=0.02)


def test_sliced_wasserstein_in_one_dimension_is_the_wasserstein_distance():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 1, generator=generator), 2 * torch.randn(2000, 1, generator=generator) + 1
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    exact = np.sqrt(np.mean((np.quantile(x, quantiles) - np.quantile(y, quantiles)) ** 2))
    assert sliced_wasserstein(x, y) == pytest.approx(exact, rel=0.02)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(y, x)
    assert sliced_wasserstein(x, y) >= stats.wasserstein_distance(x[:, 0], y[:, 0]) * 0.98


# kid


def test_kernel_distance_is_unbiased_and_sees_a_shift(generator):
    draw = lambda n: torch.randn(n, 8, generator=generator)
    null = torch.tensor([kernel_distance(draw(50), draw(50), subsets=1, size=50)[0] for _ in range(400)])
    assert abs(float(null.mean())) < 4 * float(null.std()) / 20  # 4 standard errors about 0
    assert float(null.min()) < 0  # an unbiased estimate of 0 is negative at times
    value, error = kernel_distance(draw(2000), draw(2000) + 1)
    assert value > 20 * error > 0


def test_kernel_distance_by_hand():
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0]])
    # k(a, b) = (ab + 1)³; within x: k(1, 2) = 27, within y: k(0, 3) = 1, across: (1 + 64 + 1 + 343) / 4
    assert kernel_distance(x, y, subsets=1)[0] == pytest.approx(27 + 1 - 2 * (1 + 64 + 1 + 343) / 4)


def test_the_error_of_a_kernel_distance_is_not_zero_in_small_samples(generator):
    draw = lambda: torch.randn(200, 8, generator=generator)
    values = [kernel_distance(draw(), draw()) for _ in range(8)]
    assert min(error for _, error in values) > 1e-4


@pytest.mark.parametrize(("features", "name"), [("inception", "KID"), ("dinov2", "KD-dinov2"), ("", "KD")])
def test_a_kernel_distance_is_named_by_its_features(features, name, generator):
    side = summary_of(torch.randn(20, 3, generator=generator), feature_name=features)
    (kid,) = KernelDistance()(side, side)
    assert kid.name == name
    assert kid.error is not None


# prdc


def test_precision_recall_density_coverage_by_hand():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])  # with k = 1 each ball has radius 1
    fake = torch.tensor([[0.5], [0.7], [8.0]])  # radii 0.2, 0.2, 7.3
    scores = prdc(real, fake, k=1)
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(3 / 4)  # 8 ± 7.3 holds 1, 2 and 3
    assert scores["density"] == pytest.approx((2 + 2) / 3)  # the balls of 0 and 1 contain 0.5 and 0.7
    assert scores["coverage"] == pytest.approx(2 / 4)  # 0 and 1 have a fake within their ball


def test_scores_of_a_dropped_mode_lose_recall_and_keep_precision(generator):
    real = torch.cat([torch.randn(500, 4, generator=generator), torch.randn(500, 4, generator=generator) + 20])
    scores = prdc(real, torch.randn(500, 4, generator=generator))
    assert scores["precision"] > 0.9
    assert scores["recall"] == pytest.approx(0.5, abs=0.03)
    assert scores["coverage"] == pytest.approx(0.5, abs=0.06)


# memorised


def test_memorised_are_copies_not_neighbours(generator):
    train = torch.randn(300, 16, generator=generator)
    copies, fresh = train[:20] + 1e-3, torch.randn(200, 16, generator=generator)
    mask, index, ratio = memorised(train, torch.cat([copies, fresh]))
    assert mask[:20].all()
    assert index[:20].tolist() == list(range(20))
    assert float(ratio[:20].max()) < 0.01
    assert float(mask[20:].double().mean()) < 0.7  # of fresh draws from one distribution, about half


def test_copies_of_an_example_that_the_data_contain_twice_are_memorised(generator):
    train = torch.randn(50, 16, generator=generator)
    mask, _, ratio = memorised(torch.cat([train, train]), train)
    assert mask.all()
    assert ratio.isfinite().all()


def test_the_pairs_of_a_memorised_score_are_the_nearest_by_number(generator):
    train = torch.randn(40, 16, generator=generator)
    samples = torch.cat([torch.randn(20, 16, generator=generator), train[7:8]])
    (result,) = Memorised()(summary_of(samples), summary_of(train))
    assert result.pairs[0] == (20, 7)
    assert len(result.pairs) == 8


# classes


def test_classes_are_matched_by_name_and_small_ones_left_out(generator):
    features = torch.randn(41, 3, generator=generator)
    labels = torch.tensor([0] * 20 + [1] * 20 + [2])
    reference = summary_of(features, labels=labels, classes=("cat", "dog", "owl"))
    samples = summary_of(features, labels=1 - labels.clamp(max=1), classes=("dog", "cat"))
    scores = ClassDistances()(samples, reference)
    assert [(one.name, one.group) for one in scores] == [("cat", "class"), ("dog", "class")]
    assert scores[0].value == 0


# text


def test_the_text_score_is_the_mean_alignment_with_its_standard_error():
    alignment = torch.tensor([0.0, 100.0, 50.0, 50.0])
    side = summary_of(torch.randn(4, 2), alignment=alignment, alignment_name="clip text score")
    (text,) = TextScore()(side, side)
    assert (text.name, text.value) == ("clip text score", 50)
    assert text.error == pytest.approx(float(alignment.std()) / 2)
