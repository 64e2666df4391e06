"""Scores of a model while it is trained: against its training data, as section `eval` of its config says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.evaluation.inputs import of_config, of_model
from tdpm_cli.evaluation.scorer import Scorer, extractor
from tdpm_cli.sampling.build import Components, Loaded
from tdpm_cli.sampling.settings import settings_of


def scoring_of(made: Components, run: Path, device: torch.device) -> Callable[[TDPM, int], tuple[str, float]]:
    """What scores the averaged weights of a run: the distance of `eval.n` samples, drawn as section `sample` says.

    Lower is better. Raises InputError where data or features cannot be had.
    """
    config = made.config
    reference = of_config(config)
    is_image = len(reference.shape) == 3
    extract = extractor(config.eval.features, None, device) if is_image else None
    scorer = Scorer(reference, extract, batch=config.eval.batch)

    def score(model: TDPM, seen: int) -> tuple[str, float]:
        source = run / CHECKPOINTS / f"{seen:09d}" / f"ema-{config.train.ema[0]}.safetensors"
        loaded = Loaded(replace(made, model=model), source, "", source.stem, seen)
        training, _ = model.training, model.eval()
        settings = settings_of(loaded.components, precision=config.train.precision)
        found = scorer.score(of_model(loaded, settings, 0, config.eval.n, device)).scores[0]
        model.train(training)
        return found.name, found.value

    return score
