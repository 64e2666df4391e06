"""Configs and command lines that are wrong in ways nobody thought of, made by hypothesis."""

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from scripts.stress_tests.processes import Outcome
from tdpm_cli.cli import main
from tdpm_cli.config import constants as words
from tdpm_cli.config import presets
from tdpm_cli.config import schema as config
from tdpm_cli.runtime.errors import InputError

PRESETS = ["toy-mixture", "digits", "cifar10-cond", "lsun-bedroom"]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
WORDS = st.sampled_from(
    ["", "none", "auto", "../../etc/passwd", "1e309", "-0", "0x10", "nan", "𝟙", "'; rm -rf", "%s", "{0}"]
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**70), 2**70), st.floats(), TEXT, WORDS,
    st.binary(max_size=4), st.dates(),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def trials(n: int) -> Callable[[Any], Any]:
    """Settings of n examples: no database, no shrinking, the same every time."""
    return lambda test: seed(20)(
        settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate],
                 suppress_health_check=list(HealthCheck))(test)
    )  # fmt: skip


def configs(n: int, folder: Path) -> Outcome:
    """Spoil a preset n times and more: it must be refused by a message that names the key, or accepted: some do fit."""
    refused, accepted, failures = [0], [0], list[str]()

    @trials(n * 3 // 2)  # some of them do fit
    @given(st.data())
    def spoil(data: st.DataObject) -> None:
        plain = presets.read_preset(data.draw(st.sampled_from(PRESETS)))
        section = data.draw(st.sampled_from(words.SECTIONS))
        below = plain.get(section)
        keys = [*below, "nmae", ""] if isinstance(below, dict) else [None]
        key = data.draw(st.sampled_from(keys) | (TEXT if isinstance(below, dict) else st.none()))
        value = data.draw(VALUES)
        if key is None or data.draw(st.integers(0, 9)) == 0:
            plain, named = {**plain, section: value}, [section]
        elif data.draw(st.integers(0, 9)) == 0:
            plain, named = {**plain, section: {k: v for k, v in below.items() if k != key}}, [section]
        else:
            plain, named = {**plain, section: {**below, key: value}}, [str(key), section]
        try:
            config.from_dict(plain)
            accepted[0] += 1
        except InputError as error:
            refused[0] += 1
            if not any(word in str(error) for word in named):
                failures.append(f"{section}.{key}={value!r}: not named in: {error}")
        except Exception as error:
            failures.append(f"{section}.{key}={value!r}: {type(error).__name__}: {error}")

    spoil()
    return Outcome(
        "a wrong config is refused by a message that names the key",
        f"{refused[0]} presets with a random value, key or section in place of one of theirs (hypothesis)",
        f"{refused[0]} refused by name ({accepted[0]} more values did fit), {len(failures)} tracebacks or unnamed",
        failures,
    )


OPTIONS = {
    "train": ["--preset", "--data", "--duration", "--batch", "--seed", "--precision", "--resume", "--set"],
    "sample": ["--n", "--model", "--steps", "--seed", "--sampler", "--eta", "--batch", "--labels", "--format"],
    "eval": ["--n", "--model", "--ref", "--features", "--weights", "--seed", "--repeats"],
    "sweep": ["--steps", "--model", "--n", "--sampler", "--start", "--scale"],
    "export": ["--model", "--format"],
}  # fmt: skip
NEVER = [  # what can never be right, whatever else stands on the line
    ("--nonsense", "--nonsense"), ("--set train.batch", "train.batch"), ("--set trian.batch=2", "trian"),
    ("--set train.batch=-1", "train.batch"), ("--set train.bacth=2", "bacth"), ("--duration x", "duration"),
    ("--set schedule.truncate={step: 0.5}", "truncate"), ("--precision fp8", "precision"),
    ("--set train.batch=[", "train.batch"), ("--set backbone.name=os", "backbone"), ("--seed -1", "seed"),
    ("--set train.batch=!!python/object:os.system", "train.batch"), ("--on-save-error never", "on_save_error"),
]  # fmt: skip


def lines(n: int, folder: Path) -> Outcome:
    """Call the command line n times with what cannot be right: status 2, and the word that is wrong in the message."""
    failures, tried = list[str](), [0]
    argument = TEXT.filter(lambda text: "\0" not in text and "\ud800" not in text)

    @trials(n)
    @given(st.data())
    def call(data: st.DataObject) -> None:
        tried[0] += 1
        if data.draw(st.booleans()):
            wrong, named = data.draw(st.sampled_from(NEVER))
            option, _, value = wrong.partition(" ")
            words = ["train", "--preset", "toy-mixture", "--dry-run", option, *([value] if value else [])]
        else:
            verb = data.draw(st.sampled_from(sorted(OPTIONS)))
            option = data.draw(st.sampled_from(OPTIONS[verb]))
            value = data.draw(argument | WORDS | st.integers().map(str) | st.floats().map(str))
            words, named = [verb, option, value, f"--never-{data.draw(st.integers(0, 99))}"], ""
        status, told = called(words)
        if status != 2:
            failures.append(f"{words}: status {status}: {told[-300:]}")
        elif named not in told:
            failures.append(f"{words}: {named!r} is not in: {told[-300:]}")
        elif "Traceback" in told or "defect" in told:
            failures.append(f"{words}: {told[-300:]}")

    call()
    return Outcome(
        "a wrong command line is answered by status 2 and a message that names what is wrong",
        f"{tried[0]} lines with a wrong option, key or value (hypothesis)",
        f"{tried[0]} of status 2, {len(failures)} otherwise, unnamed, or with a traceback",
        failures,
    )


def called(words: list[str]) -> tuple[int, str]:
    """The exit status of the command line, and all that it told."""
    told, before = io.StringIO(), sys.argv
    sys.argv = ["tdpm", *words]
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            main()
    except SystemExit as stop:
        return int(stop.code or 0), told.getvalue()
    except BaseException as error:
        return 1, f"{told.getvalue()}Traceback: {type(error).__name__}: {error}"
    finally:
        sys.argv = before
