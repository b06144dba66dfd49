"""A transformer encoder of the sizes of BERT, to be timed, not to be trained.

"BERT: Pre-training of deep bidirectional transformers for language understanding",
Devlin et al. 2019: learned positions, post-normalised layers, a pooler, and two heads,
one for masked words, whose matrix is that of the word embedding, and one that tells
whether the second sentence follows the first.
"""

from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

VOCABULARY = 30528
"""BERT's 30522 words, padded to a multiple of 64."""

POSITIONS = 512
DROPOUT = 0.1
EPSILON = 1e-12
UNMASKED = -100
"""Label of a position whose word need not be guessed."""


class Size(NamedTuple):
    """How large an encoder is."""

    width: int
    layers: int
    heads: int


SIZES = {
    "bert-tiny": Size(128, 2, 2),
    "bert-base": Size(768, 12, 12),
    "bert-large": Size(1024, 24, 16),
}


@final
class Attention(nn.Module):
    """Every position looks at all that are no padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """From (batch, length, width) to the same; `real` is False at padding."""
        found = scaled_dot_product_attention(
            self._split(self.query(x)),
            self._split(self.key(x)),
            self._split(self.value(x)),
            attn_mask=real[:, None, None, :],
            dropout_p=DROPOUT if self.training else 0.0,
        )
        joined: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


@final
class Layer(nn.Module):
    """Attention, then a network of four times the width, each added and normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attended = nn.LayerNorm(width, EPSILON)
        self.network = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.added = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """From (batch, length, width) to the same."""
        x = self.attended(x + self.dropout(self.attention(x, real)))
        added: Tensor = self.added(x + self.dropout(self.network(x)))
        return added


@final
class Encoder(nn.Module):
    """BERT with both heads of its pre-training.

    Args:
        size: one of `SIZES`.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.words = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(POSITIONS, width)
        self.types = nn.Embedding(2, width)
        self.embedded = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(
            Layer(width, size.heads) for _ in range(size.layers)
        )
        self.pooler = nn.Linear(width, width)
        self.follows = nn.Linear(width, 2)
        self.transform = nn.Linear(width, width)
        self.transformed = nn.LayerNorm(width, EPSILON)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))
        self.apply(_initialise)

    def forward(
        self, words: Tensor, types: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores of words, (batch, length, vocabulary), and of "follows", (batch, 2).

        Args:
            words: (batch, length), numbers below `VOCABULARY`.
            types: (batch, length), 0 in the first sentence and 1 in the second.
            real: (batch, length), False at padding.
        """
        places = torch.arange(words.shape[1], device=words.device)
        x = self.words(words) + self.places(places) + self.types(types)
        x = self.dropout(self.embedded(x))
        for layer in self.layers:
            x = layer(x, real)
        guess = self.transformed(gelu(self.transform(x)))
        scores = guess @ self.words.weight.T + self.bias
        return scores, self.follows(torch.tanh(self.pooler(x[:, 0])))


def pretraining_loss(
    outputs: tuple[Tensor, Tensor], labels: Tensor, follows: Tensor
) -> Tensor:
    """Mean cross entropy of the masked words plus that of the next sentence.

    Args:
        outputs: what `Encoder` returns.
        labels: (batch, length), the word, or `UNMASKED`.
        follows: (batch,), 0 or 1.
    """
    scores, relation = outputs
    words = cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=UNMASKED)
    return words + cross_entropy(relation, follows)


def _initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 and biases of zero, as BERT has them."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
