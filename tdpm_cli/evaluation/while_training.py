"""Score a model while it is trained, against its training data, as section `eval` of its config sets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.evaluation.extractors import load_extractor
from tdpm_cli.evaluation.inputs import data_of, samples_of
from tdpm_cli.evaluation.scorer import Scorer
from tdpm_cli.sampling.build import Components, LoadedModel
from tdpm_cli.sampling.settings import settings_of

ScoreModel = Callable[[TDPM, int], tuple[str, float]]


def checkpoint_scorer(components: Components, run: Path, device: torch.device) -> ScoreModel:
    """Return a function that scores averaged weights: (model, images seen) -> (name of the distance, its value).

    `eval.n` samples are drawn as section `sample` sets. A lower distance is better. Raises InputError if the training
    data or the weights of the features are missing.
    """
    config = components.config
    reference = data_of(config)
    extractor = load_extractor(config.eval.features, None, device) if reference.is_image else None
    scorer = Scorer(reference, extractor, batch=config.eval.batch)

    def score(model: TDPM, seen: int) -> tuple[str, float]:
        source = run / CHECKPOINTS / f"{seen:09d}" / f"ema-{config.train.ema[0]}.safetensors"
        loaded = LoadedModel(replace(components, model=model), source, "", source.stem, seen)
        training, _ = model.training, model.eval()
        settings = settings_of(loaded.components, precision=config.train.precision)
        distance = scorer.score(samples_of(loaded, settings, 0, config.eval.n)).distance
        model.train(training)
        return distance.name, distance.value

    return score
