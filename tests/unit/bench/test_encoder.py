"""The encoder is as large as BERT and uses all that it is given."""

import pytest
import torch

from acidmpi.bench.encoder import SIZES, UNMASKED, VOCABULARY, Encoder, pretraining_loss

LENGTH = 8


@pytest.mark.parametrize(
    ("name", "millions"), [("bert-base", 110.1), ("bert-large", 336.2)]
)
def test_it_has_as_many_parameters_as_the_original(name, millions):
    with torch.device("meta"):
        encoder = Encoder(SIZES[name])
    count = sum(p.numel() for p in encoder.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    return Encoder(SIZES["bert-tiny"]).eval()


def batch():
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(VOCABULARY, (2, LENGTH), generator=generator)
    types = torch.zeros_like(words)
    real = torch.ones_like(words, dtype=torch.bool)
    real[:, LENGTH - 2 :] = False
    return words, types, real


@torch.no_grad()
def test_padding_is_not_looked_at_and_words_are(encoder):
    words, types, real = batch()
    before = encoder(words, types, real)[1]
    padding, inside = words.clone(), words.clone()
    padding[:, LENGTH - 1] = 3
    inside[:, LENGTH - 3] = 3
    assert torch.equal(encoder(padding, types, real)[1], before)
    assert not torch.equal(encoder(inside, types, real)[1], before)


@torch.no_grad()
def test_sentences_and_places_matter(encoder):
    words, types, real = batch()
    before = encoder(words, types, real)[1]
    assert not torch.equal(encoder(words, 1 - types, real)[1], before)
    turned = words.clone()
    turned[:, 1:4] = words[:, 1:4].flip(1)
    assert not torch.equal(encoder(turned, types, real)[1], before)


def test_the_loss_of_certain_answers_is_zero_and_unmasked_words_do_not_count():
    labels = torch.tensor([[4, UNMASKED]])
    scores = torch.zeros(1, 2, VOCABULARY)
    scores[0, 0, 4] = 1e4
    follows = torch.tensor([1])
    sure = torch.tensor([[0.0, 1e4]])
    assert pretraining_loss((scores, sure), labels, follows) == 0
    scores[0, 1, 7] = 1e4
    assert pretraining_loss((scores, sure), labels, follows) == 0
    assert pretraining_loss((scores, sure), labels, 1 - follows) > 1
    labels[0, 0] = 5
    assert pretraining_loss((scores, sure), labels, follows) > 1
