import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.task import TaskSpec
from agent.text_policy import TextPolicy
from agent.weights import flat_weights
from learner.batch_source import BatchSource, NoData, TaskSources
from learner.checkpoint import open_checkpoint, restore_checkpoint, take_snapshot, write_checkpoint
from learner.config import LearnerConfig
from learner.learner import Diverged, Learner
from learner.optimiser import learning_rate, make_optimiser
from replay.window import Window
from tests.agent.tasks import CONTROL, GRID, QUESTION, TASKS
from tests.learner.windows import ListStream, random_window

SETTINGS = {"windows_per_batch": 8, "tokens_per_row": 160, "steps": 40, "warmup_steps": 2, "prefetch_batches": 0}


def make_learner(
    tasks: tuple[TaskSpec, ...] = TASKS,
    good: int = 2,
    online_share: float = 0.25,
    width: int = 32,
    agent: Mapping[str, Any] = MappingProxyType({}),
    **changes: object,
) -> Learner:
    rng = np.random.default_rng(0)
    sources = {
        task.name: TaskSources(
            task,
            1.0,
            (online_share, online_share),
            {
                "demonstrations": ListStream([random_window(task, 5, rng) for _ in range(3)]),
                "good": ListStream([random_window(task, 5, rng, version=4) for _ in range(good)]),
            },
        )
        for task in tasks
    }
    torch.manual_seed(0)
    made = Agent(AgentConfig(width=width, layers=1, heads=2, **agent), tasks)
    return Learner(made, sources, LearnerConfig(**(SETTINGS | changes)), seed=1)


def test_shares_are_exact_and_online_windows_are_counted() -> None:
    learner = make_learner(tasks=(CONTROL, GRID), windows_per_batch=16)
    learner.version = 6
    for _ in range(4):
        learner.step()
    metrics = learner.metrics()
    for task in ("test/control", "test/grid"):
        assert metrics[f"share_actual/good/{task}"] == metrics[f"share_asked/good/{task}"] == 0.125
    assert learner.counters()["online_windows_learned"] == 4 * 4
    assert metrics["lag_versions_mean"] == metrics[f"lag_versions_mean/{GRID.name}"] == 2.0
    assert metrics["demonstration_share"] == 0.75
    assert learner.metrics() == {}  # nothing stale is reported again


def test_online_windows_are_drawn_in_proportion_to_their_steps() -> None:
    rng = np.random.default_rng(0)
    context = CONTROL.context_steps
    short, whole = (random_window(CONTROL, steps, rng, version=1) for steps in (1, context))

    class Shuffled(ListStream):
        def get(self, timeout: float) -> Window:
            return self.windows[rng.integers(len(self.windows))]

    config = LearnerConfig(**(SETTINGS | {"windows_per_batch": 64, "prompt_share": 0.0}))
    torch.manual_seed(0)
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [CONTROL])
    for name, expected in (("online", 1 / (1 + context)), ("good", 0.5)):
        source = TaskSources(CONTROL, 1.0, (1.0, 1.0), {name: Shuffled([short, whole])})
        batches = BatchSource(agent, {CONTROL.name: source}, config, 0)
        lengths = np.concatenate([batches.make().batch.groups[0].lengths.numpy() for _ in range(20)])
        assert (lengths == 1).mean() == pytest.approx(expected, abs=0.05)


def test_the_share_of_own_windows_moves_from_its_first_to_its_last_value() -> None:
    rng = np.random.default_rng(0)
    streams = {
        "demonstrations": ListStream([random_window(CONTROL, 5, rng)]),
        "online": ListStream([random_window(CONTROL, 5, rng, version=1)]),
        "best": ListStream([random_window(CONTROL, 5, rng, version=1)]),
    }
    torch.manual_seed(0)
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [CONTROL])
    config = LearnerConfig(**(SETTINGS | {"steps": 40, "windows_per_batch": 10, "prompt_share": 0.0}))
    sources = {CONTROL.name: TaskSources(CONTROL, 1.0, (0.0, 1.0), streams, best_share=0.25)}
    batches = BatchSource(agent, sources, config, 0)
    actual = [batches.make().actual for _ in range(60)]

    def counts(source: str) -> list[int]:
        return [each.get((CONTROL.name, source), 0) for each in actual]

    assert counts("demonstrations")[0] == 10 and not any(counts("demonstrations")[40:])
    own = np.add(counts("online"), counts("best"))
    assert np.abs(own[:40] - np.arange(40) / 4).max() <= 2
    assert sum(counts("best")) / own.sum() == pytest.approx(0.25, abs=0.01)

    resumed = BatchSource(agent, sources, config, 0, first=40)
    assert resumed.make().actual.get((CONTROL.name, "demonstrations"), 0) == 0


def test_a_share_of_windows_carries_prompts_half_of_them_ends_of_demonstrations() -> None:
    rng = np.random.default_rng(0)
    ends = [random_window(GRID, 5, rng) for _ in range(2)]
    online = dataclasses.replace(ends[0], metadata=dataclasses.replace(ends[0].metadata, source="online"))
    streams = {
        "demonstrations": ListStream([random_window(GRID, 9, rng) for _ in range(3)]),
        "good": ListStream([random_window(GRID, 9, rng, version=1)]),
        "ends": ListStream([online, *ends]),
    }
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [GRID])
    source = BatchSource(
        agent, {GRID.name: TaskSources(GRID, 1.0, (0.25, 0.25), streams)}, LearnerConfig(**SETTINGS), 0
    )
    crops = {name: [source._crop(source._sources[GRID.name], name, rng) for _ in range(800)] for name in streams}
    assert all(
        crop.length + (crop.prompt.length if crop.prompt else 0) == 4 for each in crops.values() for crop in each
    )
    for name, share_of_ends in (("demonstrations", 0.5), ("good", 0.0)):
        prompts = [crop.prompt for crop in crops[name] if crop.prompt is not None]
        assert len(prompts) / 800 == pytest.approx(0.25, abs=0.05)
        from_ends = [prompt for prompt in prompts if any(prompt.window is end for end in ends)]
        assert len(from_ends) / len(prompts) == pytest.approx(share_of_ends, abs=0.1)
        assert all(prompt.stop == prompt.window.length for prompt in from_ends)
        assert all(prompt.window is not online for prompt in prompts)

    learner = make_learner(prompt_share=1.0, tasks=(GRID,))
    learner.step()
    assert learner.metrics()["prompt_share"] == 1.0


class DryStream(ListStream):
    """One that holds a few windows and is then empty, as before a replay server that came back."""

    def get(self, timeout: float) -> Window | None:
        return self.windows.pop() if self.windows else None


def test_a_table_that_runs_dry_within_a_batch_leaves_the_rest_to_demonstrations() -> None:
    window = random_window(CONTROL, 6, np.random.default_rng(0))
    streams = {"demonstrations": ListStream([window]), "good": DryStream([window] * 3)}
    sources = {CONTROL.name: TaskSources(CONTROL, 1.0, (0.75, 0.75), streams)}
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [CONTROL])
    sourced = BatchSource(agent, sources, LearnerConfig(**SETTINGS), 0).make()
    assert sourced.asked[CONTROL.name, "good"] > 3
    assert sourced.actual[CONTROL.name, "good"] == 3
    assert sum(sourced.actual.values()) == sum(sourced.asked.values()) == len(sourced.origins)
    assert sum(origin.source == "good" for origin in sourced.origins) == 3


def test_an_empty_good_table_leaves_its_share_to_demonstrations() -> None:
    learner = make_learner(tasks=(CONTROL,), good=0)
    learner.step()
    metrics = learner.metrics()
    assert metrics["share_asked/good/test/control"] == 0.25
    assert metrics["share_actual/good/test/control"] == 0.0
    assert metrics["demonstration_share"] == 1.0 and learner.online_windows_learned == 0


def test_a_table_that_gives_nothing_is_named() -> None:
    source = TaskSources(CONTROL, 1.0, (0.0, 0.0), {"demonstrations": ListStream([])})
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [CONTROL])
    config = LearnerConfig(**(SETTINGS | {"data_deadline": 0.1}))
    with pytest.raises(NoData, match="demonstrations/test/control gave no window"):
        BatchSource(agent, {CONTROL.name: source}, config, 0).make()


def through_and_resumed(folder: Path, prefetch: int = 0, **changes: Any) -> tuple[Learner, Learner]:
    """Six updates by one learner; and three, a checkpoint in ``folder``, and three more by a learner made anew."""
    through = make_learner(good=1, online_share=0.5, **changes)
    for _ in range(6):
        through.step()
    stopped = make_learner(good=1, online_share=0.5, **changes)
    for _ in range(3):
        stopped.step()
    stopped.next_version()
    checkpoint = open_checkpoint(write_checkpoint(folder, take_snapshot(stopped, {"replay": "none"})))
    assert checkpoint.extra == {"replay": "none"}
    resumed = make_learner(good=1, online_share=0.5, prefetch_batches=prefetch, **changes)
    restore_checkpoint(checkpoint, resumed)
    assert resumed.counters() == stopped.counters() and resumed.version == 1
    # The streams are fresh and go round lists; put them where the stopped learner's were.
    for name, sources in resumed._sources.items():
        for key, stream in sources.streams.items():
            stream._next = stopped._sources[name].streams[key]._next
    for _ in range(3):
        resumed.step()
    resumed.close()
    return through, resumed


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resumed_learner_goes_on_as_if_never_stopped(tmp_path: Path, prefetch: int) -> None:
    through, resumed = through_and_resumed(tmp_path, prefetch)
    for name, array in flat_weights(resumed.agent).items():
        np.testing.assert_allclose(array, flat_weights(through.agent)[name], atol=1e-6, err_msg=name)


@pytest.mark.learning
@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_one_batch_overfits_for_every_kind_of_target(embedding: str) -> None:
    """To under 0.01 nats a target, actions of all kinds and returns; and then the policy says the texts."""
    learner = make_learner(
        tasks=(*TASKS, QUESTION), online_share=0.0, steps=400, learning_rate=3e-3, width=64, weight_decay=0.0,
        prompt_share=0.0, tokens_per_row=500, return_dropout=0.0,
        agent={"observation_embedding": embedding, "returns": "masked"},
    )  # fmt: skip
    one = learner.batches.make()
    learner.batches.get = lambda: one  # type: ignore[method-assign]
    for _ in range(400):
        learner.step()
        if learner.step_count % 100 == 0:
            metrics = learner.metrics()
    for kind in ("discrete", "continuous", "text", "return"):
        assert metrics[f"loss/{kind}"] < 0.01, kind
    windows = learner._sources[QUESTION.name].streams["demonstrations"].windows
    policy = TextPolicy(learner.agent, QUESTION, len(windows))
    observation: dict[str, Any] = {"picture": np.stack([window.observation["picture"][0] for window in windows])}
    observation["question"] = [window.metadata.texts["question"] for window in windows]
    said = policy.act(observation, np.ones(len(windows), bool)).action
    np.testing.assert_array_equal(said, np.stack([window.action[0] for window in windows]))


@pytest.mark.parametrize("objective", ["imitation", "return_conditioned"])
def test_entropy_is_the_share_of_the_greatest_over_legal_actions(objective: str) -> None:
    learner = make_learner(
        tasks=(*TASKS, QUESTION), objective=objective, agent={"returns": "masked"}, learning_rate=3e-3, steps=200
    )
    torch.nn.init.zeros_(learner.agent.tokens.weight)  # every action as likely
    learner.step()
    metrics = learner.metrics()
    for task in TASKS:
        assert metrics[f"entropy/{task.name}"] == pytest.approx(1.0, abs=1e-4)
    assert f"entropy/{QUESTION.name}" not in metrics  # a text
    for _ in range(60):
        learner.step()
    assert all(0 < learner.metrics()[f"entropy/{task.name}"] < 0.99 for task in TASKS[:1])


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for kept in (False, True):
        learner = make_learner(activation_checkpointing=kept)
        learner.step()
        gradients.append({name: parameter.grad for name, parameter in learner.agent.named_parameters()})
    for name, gradient in gradients[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_a_backend_without_gradients_is_refused() -> None:
    with pytest.raises(ValueError, match=r"agent\.attention=fused"):
        make_learner(agent={"attention": "flexible"}, device="cpu")
    with pytest.raises(ValueError, match=r"heads of at least 16.* = 8; use agent\.attention=fused"):
        AgentConfig(width=32, heads=4, attention="flexible").validate()


def test_divergence_is_named() -> None:
    learner = make_learner(tasks=(CONTROL,))
    with torch.no_grad():
        learner.agent.tokens.weight.fill_(torch.inf)
    for _ in range(learner.config.skipped_in_a_row - 1):
        learner.step()
    assert learner.metrics()["skipped_steps"] == 9
    learner.step()
    with pytest.raises(Diverged, match=r"10 updates in a row .* lower learner\.learning_rate"):
        learner.metrics()


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_an_update_without_a_finite_loss_or_gradient_changes_nothing_and_is_counted(part: str, monkeypatch) -> None:
    learner = make_learner(tasks=(CONTROL,), skipped_in_a_row=2)
    sound = learner.objective.loss

    def poisoned(agent, batch):  # type: ignore[no-untyped-def]
        loss, record = sound(agent, batch)
        if part == "loss":
            return loss * torch.nan, record
        return loss + (agent.tokens.weight[:1, :1] * 0).sqrt().sum(), record  # finite, its gradient is not

    def state() -> list[torch.Tensor]:
        moments = [value for each in learner.optimiser.state.values() for value in each.values()]
        return [tensor.detach().clone() for tensor in [*learner.agent.parameters(), *moments]]

    def step(loss) -> bool:  # type: ignore[no-untyped-def]
        monkeypatch.setattr(learner.objective, "loss", loss)
        before = state()
        learner.step()
        return any(not torch.equal(a, b) for a, b in zip(before, state(), strict=True))

    learner.step()  # the optimiser makes its moments
    assert [step(loss) for loss in (sound, poisoned, sound, poisoned, sound)] == [True, False, True, False, True]
    metrics = learner.metrics()
    assert metrics["skipped_steps"] == 2 and np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize(("factor", "skipped"), [(1.0, False), (1e9, False), (1e30, True)])
def test_an_exploding_gradient_moves_weights_no_further_than_another(
    factor: float, skipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is clipped, and counted as such; one whose norm is beyond float32 is skipped."""
    learner = make_learner(tasks=(CONTROL,), gradient_clip=1e-3, learning_rate=1e-3, warmup_steps=1)
    sound = learner.objective.loss

    def exploding(agent, batch):  # type: ignore[no-untyped-def]
        loss, record = sound(agent, batch)
        return loss * factor, record

    monkeypatch.setattr(learner.objective, "loss", exploding)
    before = [parameter.detach().clone() for parameter in learner.agent.parameters()]
    learner.step()
    moved = max(float((a - b).abs().max()) for a, b in zip(learner.agent.parameters(), before, strict=True))
    metrics = learner.metrics()
    assert metrics["skipped_steps"] == skipped and metrics["clipped_fraction"] == 1.0
    assert moved == 0.0 if skipped else 0.0 < moved < 2e-3
    assert skipped or metrics["gradient_norm"] > 0.01 * factor


def test_weights_decay_where_they_are_matrices() -> None:
    agent = Agent(AgentConfig(width=32, layers=1, heads=2, positions="xl", attention_window=4), TASKS)
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    decays = {
        names[id(parameter)]: group["weight_decay"] > 0
        for group in make_optimiser(agent, LearnerConfig(weight_decay=0.1)).param_groups
        for parameter in group["params"]
    }
    assert decays.keys() == set(names.values())
    block = "transformer.blocks.0"
    for name in (f"{block}.query_key_value.weight", f"{block}.relative.project.weight", "observation.state.elements"):
        assert decays[name], name
    biases = ("relative.content_bias", "relative.position_bias", "sink.key", "sink.value", "attention_norm.weight")
    for name in biases:
        assert not decays[f"{block}.{name}"], name


def test_the_learning_rate_warms_up_and_decays_by_steps_or_time() -> None:
    config = LearnerConfig(learning_rate=1.0, warmup_steps=10, steps=110, final_learning_rate_fraction=0.1)
    assert learning_rate(0, 0.0, config) == pytest.approx(0.1)
    assert learning_rate(10, 0.0, config) == pytest.approx(1.0)
    assert learning_rate(50, 1.0, config) == pytest.approx(0.1)
    learner = make_learner(tasks=(CONTROL,), minutes=1.0)
    learner.seconds = 30.0
    assert learner.progress == 0.5 and not learner.finished
    learner.seconds = 61.0
    assert learner.finished


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows_per_batch": 0}, "learner.windows_per_batch"),
        ({"past_action_dropout": 2.0}, "learner.past_action_dropout"),
        ({"loss_normalisation": "batch"}, "row, task, token"),
        ({"minutes": -1.0}, "learner.minutes"),
    ],
)
def test_settings_out_of_range_name_their_key(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnerConfig(**changes).validate()


def test_image_encoders_have_a_rate_of_their_own() -> None:
    learner = make_learner(image_learning_rate=0.25, warmup_steps=1, steps=10)
    learner.step()
    images = {id(parameter) for parameter in learner.agent.observation.image.parameters()}  # type: ignore[union-attr]
    seen = 0
    for group in learner.optimiser.param_groups:
        for parameter in group["params"]:
            expected = learner.config.learning_rate * (0.25 if id(parameter) in images else 1.0)
            assert group["lr"] == pytest.approx(expected)
            seen += 1
    assert seen == len(list(learner.agent.parameters()))
    with pytest.raises(ValueError, match=r"learner\.image_learning_rate"):
        make_learner(image_learning_rate=0.0)


@pytest.mark.parametrize("settings", [{}, {"attention_window": 5}, {"positions": "xl"}], ids=str)
def test_metrics_say_how_evenly_each_layer_attends(settings: dict) -> None:
    """Once they are asked for; it costs no random number and changes no gradient."""
    learner, other = (make_learner(agent=settings) for _ in range(2))
    learner.step()
    shares = [value for name, value in learner.metrics().items() if name.startswith("attention_entropy/layer")]
    assert len(shares) == 1 and all(0.3 < share < 1.0 for share in shares)
    other.step()
    for each in (learner, other):
        each.step()
    for ours, theirs in zip(learner.agent.parameters(), other.agent.parameters(), strict=True):
        assert torch.equal(ours, theirs)
