import math
import subprocess
import sys

import pytest
import torch

from agent.attention import Layout, attention, attention_entropy, rotary_angles, rotate

LENGTH = 6
SEGMENTS = torch.tensor([[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 4, 4]])
POSITIONS = torch.tensor([[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 1]])
IN_ORDER = torch.arange(LENGTH)[None]
# A cache of 6 columns, one of them empty, and two new tokens in the last columns.
KEYS = torch.tensor([[4, 1, 2, 3, 5, 6], [-1, 0, 1, 2, 3, 4]])
LAYOUTS = {
    "causal": Layout(IN_ORDER),
    "segments": Layout(POSITIONS, SEGMENTS),
    "window": Layout(IN_ORDER, window=3),
    "window in segments beside a sink": Layout(POSITIONS, SEGMENTS, window=2, sink=True),
    "window with pinned tokens": Layout(POSITIONS, SEGMENTS, window=2, pinned=(POSITIONS == 0)),
    "private tokens in segments": Layout(POSITIONS, SEGMENTS, private=POSITIONS % 2 == 1, timesteps=POSITIONS // 2),
    "private tokens in a cache beside a sink": Layout(
        KEYS[:, -2:],
        key_positions=KEYS,
        private=KEYS % 2 == 1,
        timesteps=KEYS[:, -2:] // 3,
        key_timesteps=KEYS // 3,
        window=4,
        sink=True,
    ),
    "cache": Layout(KEYS[:, -2:], key_positions=KEYS),
    "cache with a window and a sink": Layout(KEYS[:, -2:], key_positions=KEYS, window=3, sink=True),
    "cache with a window, a prompt and a sink": Layout(
        KEYS[:, -2:], key_positions=KEYS, window=2, pinned=(torch.arange(6) < 2)[None], sink=True
    ),
}


def visible_by_hand(layout: Layout, row: int, query: int, key: int) -> bool:
    if layout.sink:
        if key == 0:
            return True
        key -= 1
    positions = layout.positions[row % len(layout.positions)].tolist()
    keys = layout.keys[row % len(layout.keys)].tolist()
    if layout.segments is not None and layout.segments[row, query] != layout.segments[row, key]:
        return False
    if keys[key] < 0 or keys[key] > positions[query]:
        return False
    if layout.private is not None and layout.private[row, key]:
        of_keys = layout.timesteps if layout.key_timesteps is None else layout.key_timesteps
        if layout.timesteps[row, query] != of_keys[row, key]:
            return False
    if layout.pinned is not None and layout.pinned[row % len(layout.pinned), key]:
        return True
    return layout.window is None or positions[query] - keys[key] < layout.window


@pytest.mark.parametrize("name", LAYOUTS)
def test_who_sees_whom(name: str) -> None:
    layout = LAYOUTS[name]
    mask = layout.whole_mask
    rows, _, queries, keys = mask.shape
    expected = [[[visible_by_hand(layout, r, q, k) for k in range(keys)] for q in range(queries)] for r in range(rows)]
    assert mask[:, 0].tolist() == expected


def outcomes(name: str, with_bias: bool, backend: str, device: str = "cpu") -> list[torch.Tensor]:
    """What a backend makes of random values, and its gradients where it has some."""
    layout = LAYOUTS[name]
    generator = torch.Generator().manual_seed(0)
    queries, keys = layout.whole_mask.shape[2:]
    rows = 1 if name in ("causal", "window") else 2
    layout = layout.map(lambda tensor: tensor.expand(rows, -1).to(device))
    shapes = [(rows, 2, n, 16) for n in (queries, keys, keys)] + [(1, 2, queries, keys)] * with_bias
    learns = backend != "flexible" or device == "cuda"  # PyTorch has no gradients for it on a CPU
    inputs = [torch.randn(shape, generator=generator).to(device).requires_grad_(learns) for shape in shapes]
    out = attention(*inputs[:3], layout, inputs[3] if with_bias else None, backend)
    return [out, *(torch.autograd.grad(out.square().sum(), inputs) if learns else ())]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_backends_agree_in_outputs_and_gradients(name: str, with_bias: bool) -> None:
    for fused, dense in zip(outcomes(name, with_bias, "fused"), outcomes(name, with_bias, "dense"), strict=True):
        torch.testing.assert_close(fused, dense, atol=1e-5, rtol=1e-5)


def test_entropy_of_attention_is_a_share_of_the_most() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 2, LENGTH, 8)
    k = torch.randn(shape, generator=generator)
    alike, one = torch.zeros(shape), 1e4 * torch.randn(shape, generator=generator)
    for name in ("causal", "segments", "window in segments beside a sink"):
        layout = LAYOUTS[name].map(lambda tensor: tensor.expand(2, -1))
        keys = layout.whole_mask.shape[-1]
        seen = torch.nn.functional.pad(k, (0, 0, keys - LENGTH, 0))
        assert float(attention_entropy(alike, seen, layout)) == pytest.approx(1.0), name
        assert float(attention_entropy(one, seen, layout)) < 0.05, name
    # By hand: one token at 0, and at 1 two of which one weighs thrice as much; padding counts for nothing.
    layout = Layout(torch.tensor([[0, 1, 0]]), torch.tensor([[1, 1, 0]]))
    q, k = torch.ones(1, 1, 3, 1), torch.tensor([[[[0.0], [math.log(3.0)], [0.0]]]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert float(attention_entropy(q, k, layout)) == pytest.approx(expected)


def check_flexible() -> None:
    """Compare the flexible backend with the formula over all layouts; prints how many outcomes agreed."""
    device, agreed = "cuda" if torch.cuda.is_available() else "cpu", 0
    for name in LAYOUTS:
        for with_bias in (False, True):
            pairs = zip(*(outcomes(name, with_bias, backend, device) for backend in ("flexible", "dense")))
            for flexible, dense in pairs:
                torch.testing.assert_close(flexible, dense, atol=1e-5, rtol=1e-5)
                agreed += 1
    print(agreed)


@pytest.mark.long
def test_the_flexible_backend_agrees_too() -> None:
    """In a process of its own: PyTorch's compiler may hang in one that has gRPC's threads."""
    code = "from tests.agent.test_attention import check_flexible; check_flexible()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= 2 * len(LAYOUTS)


def test_rotary_scores_depend_on_distance_alone_even_far_out() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 32)
    scores = []
    for offset in (0, 7, 300_000):
        at = rotary_angles(torch.tensor([[offset + 5]]), 32), rotary_angles(torch.tensor([[offset]]), 32)
        scores.append((rotate(q, at[0]) * rotate(k, at[1])).sum())
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[2], scores[0], atol=1e-5, rtol=1e-5)
