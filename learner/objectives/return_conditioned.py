"""Return conditioning: imitation of what was done, told what came of it (Chen et al. 2021; Lee et al. 2022, section 4).

The loss is that of `learner.objectives.imitation`, in a model whose sequence holds the return to come R_t before each
action (``agent.returns``), which is known in hindsight: -log p(R_t | o_1..o_t) - log p(a_t | o_1..o_t, R_t), and with
``learner.reward_prediction`` - log p(sign r_t | o_1..o_t, R_t, a_t). Acting, a return is asked for
(``decoding.returns``). All of the run's own windows are learned from, also bad ones: they show what leads to low
returns (Zheng et al. 2022, section 3). Where the return to come is not known (a time limit is no end, and the tail of a
window may be too short for ``return_horizon``), nothing is said of it.

It repeats what was lucky once, and what no episode achieved it does not compose; see
`learner.objectives.advantage_filtered`.
"""

from __future__ import annotations

from agent.agent import Agent
from learner.config import LearnerConfig
from learner.objectives.imitation import Imitation


class ReturnConditioned(Imitation):
    """See the module; an `Objective` that keeps nothing. Raises ValueError for a model without return tokens."""

    def __init__(self, agent: Agent, config: LearnerConfig) -> None:
        super().__init__(config)
        if agent.config.returns == "off":
            raise ValueError(
                "learner.objective=return_conditioned needs a model with return tokens: agent.returns=masked"
            )
