"""Which episodes of a set are replayed: Gato's filter on the expert's return, and the best few."""

from __future__ import annotations

import numpy as np

from actors.config import ActorConfig
from actors.demonstrations.demonstration_set import DemonstrationSet

MOST_WINDOW = 1000
WINDOW_SHARE = 0.1


def expert_return(returns: np.ndarray) -> float:
    """Gato's expert return of N returns, in the order in which they were played.

    The highest mean of W consecutive episodes, W = min(1000, N / 10) and at least 1 (Reed et al. 2022, section 5: an
    expert may have been recorded while it was still learning).
    """
    window = max(1, min(MOST_WINDOW, int(WINDOW_SHARE * len(returns))))
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(returns, np.float64)]))
    return float(((sums[window:] - sums[:-window]) / window).max())


def kept_episodes(demonstrations: DemonstrationSet, config: ActorConfig) -> np.ndarray:
    """Indices of the episodes that ``config`` replays, int64, ascending; all without ``demonstrations_filter`` and
    ``demonstrations_top``.

    The filter keeps returns of at least random + share x (expert - random): with a random return of 0, or where it was
    not measured, that is the paper's share of the expert's return. The expert's return is over episodes without
    injected noise; every episode must reach the bound. Of what is left the ``demonstrations_top`` with the highest
    returns stay, earlier ones first among equals.

    Raises:
        ValueError: no episode is left; it names the key.
    """
    returns, share, top = demonstrations.returns, config.demonstrations_filter, config.demonstrations_top
    kept = np.arange(demonstrations.num_episodes)
    if share is not None:
        low = demonstrations.settings.random_return or 0.0
        expert = expert_return(returns[~demonstrations.noisy])
        bound = low + share * (expert - low)
        kept = kept[returns >= bound]
        if not len(kept):
            raise ValueError(
                f"demonstrations_filter={share:g} leaves no episode of {demonstrations.folder}: none reaches "
                f"{bound:.6g} (expert {expert:.6g}, random {low:.6g}, best episode {returns.max():.6g}); lower it"
            )
    if top is not None:
        kept = np.sort(kept[np.argsort(-returns[kept], kind="stable")[:top]])
    return kept
