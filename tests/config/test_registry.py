import inspect
from dataclasses import MISSING
from typing import get_type_hints

import pytest
from components import SAME_NAME, SMALL

from tdpm_cli.config import registry
from tdpm_cli.config.signatures import Key
from tdpm_cli.config.validation import check, complete
from tdpm_cli.runtime.errors import InputError


def test_every_kind_has_parts_and_an_unknown_name_gets_the_nearest():
    assert all(registry.names(kind) for kind in registry.KINDS)
    with pytest.raises(
        InputError,
        match=r"'sharde'; did you mean 'shared'.*Accepted: copy, denoised, gaussian, shared, shared-x0, stylegan2",
    ):
        registry.load("prior", "sharde")
    with pytest.raises(InputError, match=r"no-such|accepted|Accepted"):
        registry.load("prior", "../run/checkpoint")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry.names(kind)])
def test_the_signature_is_a_schema(kind, name):
    part = registry.load(kind, name)
    assert part.__doc__
    accepted = registry.keys(kind, name)
    assert accepted == imported(part)
    needed = SMALL.get(name, {}) if (kind, name) not in SAME_NAME else {}
    checked = complete(accepted, needed, kind)
    assert check(accepted, checked, kind) == checked


def imported(function):
    """The keys of what was imported, as `signatures` reads them from its source."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    keys = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {key.name: Key(hints[key.name], MISSING if key.default is key.empty else key.default) for key in keys}
