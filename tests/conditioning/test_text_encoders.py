import pytest
import torch
from components import listed

from tdpm_cli.config import registry

TEXTS = ["a red apple", "an apple that is red", "quarterly tax report", "red " * 300]


@pytest.mark.parametrize("name", listed("text_encoder"))
def test_encoders(name):
    vectors = registry.load("text_encoder", name)().vectors(12, None)
    assert vectors.truncated(TEXTS) == [TEXTS[3]]
    torch.manual_seed(0)
    text_encoder = vectors.text_encoder() or dict
    read = lambda texts: text_encoder(**vectors.encode(texts))
    vectors_of_all, alone = read(TEXTS), read(TEXTS[:1])
    assert vectors_of_all["context"].shape == (4, 12, vectors.dim)
    assert vectors_of_all["pooled"].shape == (4, vectors.dim)
    for value, same in zip(vectors_of_all.values(), alone.values(), strict=True):
        assert torch.allclose(value[:1], same, atol=1e-3)  # padding beside longer texts changes nothing
        assert not torch.allclose(value[0], value[2], atol=0.1)
    null = text_encoder(**vectors.null(2))
    assert not torch.allclose(null["pooled"][0], vectors_of_all["pooled"][0], atol=0.1)


def test_sentences_that_mean_the_same_are_near():
    one, two, other, _ = registry.load("text_encoder", "minilm")()(TEXTS, 12)
    near = lambda a, b: float(torch.cosine_similarity(a.pooled, b.pooled, 0))
    assert near(one, two) > near(one, other) + 0.3
