"""Measure the speed of tdpm next to a reference in the same call: scripts/bench train | sample | startup | all | …

Prints a line for each figure, with the ratio to the reference. `scripts/bench NAME --help` describes one benchmark.
"""

import argparse

from scripts.benchmarks import (
    adversarial,
    attention,
    evaluation,
    everything,
    export,
    growth,
    latents,
    loading,
    parallel,
    sampling,
    scores,
    startup,
    supply,
    training,
)

BENCHMARKS = {
    "startup": startup,
    "eval": evaluation,
    "data": loading,
    "supply": supply,
    "train": training,
    "adversarial": adversarial,
    "attention": attention,
    "sample": sampling,
    "export": export,
    "parallel": parallel,
    "scores": scores,
    "growth": growth,
    "latents": latents,
    "all": everything,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        description = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.options(command)
    options = vars(parser.parse_args())
    BENCHMARKS[options.pop("benchmark")].run(**options)


if __name__ == "__main__":
    main()
