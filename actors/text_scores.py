"""`TextScores`: what is said of a text task beside its mean return."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class TextScores:
    """Of n questions, captions or passages.

    Attributes:
        texts: their number n.
        accuracy: share of answers that are exactly right; NaN where nothing is observed, so that there is no answer.
        without_picture: the same with every picture grey; NaN where there is none.
        most_frequent_answer: share of the answer that is right most often: what one constant answer can reach at most.
        perplexity: exp of the mean nats of a token of the right text, its end included.
        bits_per_byte: of the right text, so that text models of other vocabularies compare.
    """

    texts: int
    accuracy: float
    without_picture: float
    most_frequent_answer: float
    perplexity: float
    bits_per_byte: float
