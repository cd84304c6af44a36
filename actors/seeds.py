"""Which seeds are for what: no episode that is reported was demonstrated, trained on or used for a choice."""

LAST_SEED = 1_000_000
"""Seeds of demonstrations are below it; evaluation and acting begin there or above."""
REPORTING_SEEDS = 1_000_000
"""First seed of evaluations that are reported."""
MONITORING_SEEDS = 2_000_000
"""First seed of evaluations made while training; disjoint from reporting, so that no choice is made on those."""
ENVIRONMENT_SEEDS = 3_000_000
"""First seed of online episodes."""


def held_out(seed: int) -> bool:
    """Whether a seed is for evaluation, so that a task with a fixed stock of data takes it from what is held out."""
    return REPORTING_SEEDS <= seed < ENVIRONMENT_SEEDS
