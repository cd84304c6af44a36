"""Where it acts: environments, environment actor, demonstration replayer, experts, evaluator."""
