"""Speed, ours beside a peer in one call: scripts/bench startup | train | sample | merge | all | …"""

import argparse

from scripts.benchmarks import (
    attention,
    evaluation,
    everything,
    export,
    growth,
    latents,
    loading,
    merging,
    parallel,
    sampling,
    scores,
    startup,
    supply,
    training,
)

WHAT = {
    "startup": startup,
    "eval": evaluation,
    "data": loading,
    "supply": supply,
    "train": training,
    "merge": merging,
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
    commands = parser.add_subparsers(dest="what", required=True)
    for name, module in WHAT.items():
        about = module.__doc__ or ""
        command = commands.add_parser(
            name, help=about.splitlines()[0], description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.options(command)
        command.set_defaults(run=module.run)
    given = vars(parser.parse_args())
    given.pop("what")
    given.pop("run")(**given)


if __name__ == "__main__":
    main()
