import pytest
import torch
from components import listed

from tdpm_cli.config import registry

TEXTS = ["a red apple", "an apple that is red", "quarterly tax report", "red " * 300]


@pytest.mark.parametrize("name", listed("text_encoder"))
def test_encoders(name):
    words = registry.load("text_encoder", name)().vectors(12, None)
    assert words.truncated(TEXTS) == [TEXTS[3]]
    torch.manual_seed(0)
    text_encoder = words.text_encoder() or dict
    read = lambda texts: text_encoder(**words.encode(texts))
    found, alone = read(TEXTS), read(TEXTS[:1])
    assert found["context"].shape == (4, 12, words.dim)
    assert found["pooled"].shape == (4, words.dim)
    for value, same in zip(found.values(), alone.values(), strict=True):
        assert torch.allclose(value[:1], same, atol=1e-3)  # padding beside longer texts changes nothing
        assert not torch.allclose(value[0], value[2], atol=0.1)
    null = text_encoder(**words.null(2))
    assert not torch.allclose(null["pooled"][0], found["pooled"][0], atol=0.1)


def test_sentences_that_mean_the_same_are_near():
    one, two, other, _ = registry.load("text_encoder", "minilm")()(TEXTS, 12)
    near = lambda a, b: float(torch.cosine_similarity(a.pooled, b.pooled, 0))
    assert near(one, two) > near(one, other) + 0.3
