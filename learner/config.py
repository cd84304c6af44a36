"""Settings of the learner."""

from __future__ import annotations

from dataclasses import dataclass

from agent.task import LEARNER_SETTINGS


@dataclass
class LearnerConfig:
    """One update and how many of them.

    Attributes:
        objective: ``imitation`` (Reed et al. 2022) of demonstrations and of the run's own good episodes. The others
            learn from all the run's own windows, good or not: ``return_conditioned`` imitates them, told what came of
            them (`learner.objectives.return_conditioned`); ``advantage_filtered`` learns action values and improves on
            them (`learner.objectives.advantage_filtered`), and the keys from ``discount`` to ``calibration`` are its
            own.
        windows_per_batch: windows in one update, split exactly over tasks and sources.
        tokens_per_row: positions of one packed sequence; at least the longest context in tokens.
        steps: updates after which training ends.
        minutes: minutes of training after which it ends, if that comes first; the learning rate is scheduled over
            whichever is nearer its end, so that a slow machine anneals as well. None: steps alone.
        learning_rate, final_learning_rate_fraction, warmup_steps: linear warm-up, then cosine decay.
        image_learning_rate: rate of the image encoders as a share of that of all else. They want less than the rest of
            a small model: at 2e-3 nothing was learned of pictures that a quarter of it read well.
        weight_decay, beta1, beta2, epsilon, gradient_clip: AdamW and the norm to which gradients are clipped.
        skipped_in_a_row: updates in a row whose loss or gradient is no finite number, each of which is skipped, after
            which the run ends.
        loss_normalisation: ``row`` (every window weighs the same), ``task`` or ``token``.
        bin_smoothing: standard deviation, in bins, of the soft target around a continuous action's bin; 0 is Gato.
        label_smoothing: probability spread over the legal ids of a discrete action.
        past_action_dropout: probability that a window's past actions are hidden from the model.
        return_dropout: probability that nothing is said of a window's return to come (with ``agent.returns``); the
            model then acts as Gato.
        reward_prediction: the last token of an action also predicts the sign of the reward that follows, one of three
            tokens (Lee et al. 2022, section 3.2), where rewards are known; it weighs as much as the action.
        prompt_share: share of windows that carry a prompt: half of the context is timesteps of another window of the
            same task and source; for demonstrations in one case of two the last of an episode (Reed et al. 2022,
            section 2.2: 0.25). Tasks with a context of one step have none.
        image_shift: images are shifted by up to this many pixels, the same for a whole window.
        good_threshold: Gato's filter: normalised return from which an online episode is imitated.
        best_share: of the run's own windows, the part drawn from those of its best episodes (needs
            ``replay.best_capacity``).
        min_replay_size: windows that each task must have in replay before the first update: of demonstrations, where it
            has them. A set that fits into replay can so be had whole from the beginning, however fast it is written.
        discount: of what comes a step later, for tasks whose actor config says none.
        value_temperature: of the policy whose values are learned: 1 the policy itself. Actors that sample more sharply
            (``action_temperature``) earn more than that, and traces of what they did end sooner.
        trace: how far a target of the critic follows what was done before it trusts the critic: 0 one step, 1 as far as
            the policy would have done the same (lambda of Retrace, Munos et al. 2016).
        outcome_share: part of an advantage of the action that was taken that is what came of it, beside what the critic
            says.
        critic_weight: of the critic's loss beside the policy's.
        critic_gradient: part of the critic's gradient that reaches what policy and critic share.
        target_rate: of the moving average of the weights, an update.
        expectile: of the values of what was done, which is what a state is said to be worth where an action has several
            tokens: 0.5 is their mean, towards 1 the best of them.
        advantage_clip: furthest that an advantage counts, in root mean squares of a task's advantages.
        advantage_floor: added to that root mean square, as a share of the task's ``value_range``: where advantages are
            smaller, the policy hardly moves.
        imitation_share: of the policy's loss on demonstrations whose rewards are known, the part that imitates them;
            the rest, and all of it on the run's own steps, weighs all actions by what the critic says of them.
        imitation_weighting: how far that part follows advantages: 0 imitates all demonstrations alike, 1 with weight
            exp(advantage in root mean squares) (AWAC, Nair et al. 2020).
        entropy_floor: share of the greatest entropy below which the policy's is raised, on the run's own steps where
            there are any; 0: never.
        prior_weight: of the logarithm of the policy in what it moves towards, where all actions are weighed: 1 adds to
            it for ever what the critic says, less fades it towards all actions alike, so that errors are forgotten.
        calibration: how far advantages are shrunk to what they have been good for: 1 multiplies them with the slope, at
            most 1, of what came of them, 0 believes the critic from the first.
        data_deadline: seconds to wait for a window before the table is named in an error.
        prefetch_batches: batches prepared ahead by a thread; 0 prepares them in line.
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
        autocast: bf16 autocast; ``auto`` is on for CUDA only (a CPU without native support is hundreds of times
            slower).
        compile: torch.compile the transformer.
        activation_checkpointing: keep each block's input only and compute the rest again backward: less memory, about a
            third more work.
    """

    objective: str = "imitation"
    windows_per_batch: int = 64
    tokens_per_row: int = 128
    steps: int = 2000
    minutes: float | None = None
    learning_rate: float = 1e-3
    image_learning_rate: float = 1.0
    final_learning_rate_fraction: float = 0.1
    warmup_steps: int = 50
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    gradient_clip: float = 1.0
    skipped_in_a_row: int = 10
    loss_normalisation: str = "row"
    bin_smoothing: float = 0.0
    label_smoothing: float = 0.0
    past_action_dropout: float = 0.0
    return_dropout: float = 0.25
    reward_prediction: bool = False
    prompt_share: float = 0.25
    image_shift: int = 0
    good_threshold: float = 0.8
    best_share: float = 0.0
    min_replay_size: int = 1
    discount: float = 0.99
    value_temperature: float = 1.0
    trace: float = 0.95
    outcome_share: float = 0.5
    critic_weight: float = 1.0
    critic_gradient: float = 1.0
    target_rate: float = 0.01
    expectile: float = 0.7
    advantage_clip: float = 1.0
    advantage_floor: float = 0.001
    imitation_share: float = 0.5
    imitation_weighting: float = 0.0
    entropy_floor: float = 0.0
    prior_weight: float = 1.0
    calibration: float = 0.0
    data_deadline: float = 120.0
    prefetch_batches: int = 2
    device: str = "auto"
    autocast: str = "auto"
    compile: bool = False
    activation_checkpointing: bool = False

    def validate(self) -> None:
        """Raise ValueError, naming the key, where a value is out of range."""
        for name in (
            "windows_per_batch",
            "tokens_per_row",
            "steps",
            "min_replay_size",
            "skipped_in_a_row",
            "target_rate",
            "advantage_clip",
            "advantage_floor",
            "learning_rate",
            "image_learning_rate",
            "data_deadline",
            "epsilon",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"learner.{name} must be above 0, not {getattr(self, name)}")
        for name in (
            "return_dropout",
            "prompt_share",
            "past_action_dropout",
            "label_smoothing",
            "final_learning_rate_fraction",
            *LEARNER_SETTINGS,
            "trace",
            "outcome_share",
            "best_share",
            "expectile",
            "target_rate",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"learner.{name} must be in [0, 1], not {getattr(self, name)}")
        for name in ("critic_weight", "bin_smoothing", "image_shift", "weight_decay", "prefetch_batches"):
            if getattr(self, name) < 0:
                raise ValueError(f"learner.{name} must not be negative, not {getattr(self, name)}")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"learner.minutes must be above 0 or null, not {self.minutes}")
        choices = {
            "objective": ("imitation", "return_conditioned", "advantage_filtered"),
            "loss_normalisation": ("row", "task", "token"),
            "device": ("auto", "cpu", "cuda"),
            "autocast": ("auto", "on", "off"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"learner.{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")


@dataclass
class CheckpointConfig:
    """When checkpoints are written, what is in them and which ones are kept (``docs/checkpoints.md``).

    Attributes:
        every_seconds: between checkpoints; one is always written at the end and on Ctrl-C.
        keep: newest checkpoints that are kept.
        best: further ones that are kept, those with the highest scores; the score of a checkpoint is the mean of all
            tasks' newest monitoring evaluations before it. 0: none.
        milestone_steps: a checkpoint is written every so many learner steps too, and kept for good. 0: none.
        replay: whether the contents of the replay server's tables are saved too, about a minute a gigabyte. They are
            kept with the newest ``keep``.
        deadline_seconds: within which a checkpoint must be on disk; contents of replay that take longer are left out.
    """

    every_seconds: float = 300.0
    keep: int = 3
    best: int = 1
    milestone_steps: int = 0
    replay: bool = False
    deadline_seconds: float = 600.0
