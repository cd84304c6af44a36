import pytest
import torch

from agent.attention import BACKENDS, Layout, attention, rotary_angles, rotate

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


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_backends_agree_in_outputs_and_gradients(name: str, with_bias: bool) -> None:
    layout = LAYOUTS[name]
    torch.manual_seed(0)
    queries, keys = layout.whole_mask.shape[2:]
    rows = 1 if name in ("causal", "window") else 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = layout.map(lambda tensor: tensor.expand(rows, -1).to(device))
    values = [torch.randn(rows, 2, n, 8, device=device) for n in (queries, keys, keys)]
    bias = [torch.randn(1, 2, queries, keys, device=device)] if with_bias else [None]
    outcomes = {}
    for backend in BACKENDS:
        learns = backend != "flexible" or device == "cuda"  # PyTorch has no gradients for it on a CPU
        inputs = [x if x is None else x.clone().requires_grad_(learns) for x in (*values, *bias)]
        out = attention(inputs[0], inputs[1], inputs[2], layout, inputs[3], backend)
        wanted = [x for x in inputs if x is not None]
        outcomes[backend] = [out, *(torch.autograd.grad(out.square().sum(), wanted) if learns else ())]
    for backend in ("fused", "flexible"):
        for other, dense in zip(outcomes[backend], outcomes["dense"]):
            torch.testing.assert_close(other, dense, atol=1e-5, rtol=1e-5)


def test_rotary_scores_depend_on_distance_alone_even_far_out() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 32)
    scores = []
    for offset in (0, 7, 300_000):
        at = rotary_angles(torch.tensor([[offset + 5]]), 32), rotary_angles(torch.tensor([[offset]]), 32)
        scores.append((rotate(q, at[0]) * rotate(k, at[1])).sum())
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[2], scores[0], atol=1e-5, rtol=1e-5)
