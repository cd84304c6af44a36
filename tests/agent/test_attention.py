import torch

from agent.attention import attention, dense_attention, rotary_angles, rotate, segment_mask


def test_fused_and_dense_agree_in_outputs_and_gradients() -> None:
    torch.manual_seed(0)
    segments = torch.tensor([[1, 1, 2, 2, 2, 0], [3, 3, 3, 3, 4, 4]])
    for mask in (None, segment_mask(segments)):
        inputs = [torch.randn(2, 2, 6, 8, requires_grad=True) for _ in range(3)]
        outcomes = []
        for backend in (attention, dense_attention):
            out = backend(*inputs, mask)
            outcomes.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
        for fused, dense in zip(*outcomes):
            torch.testing.assert_close(fused, dense, atol=1e-5, rtol=1e-5)


def test_rotary_scores_depend_on_distance_alone_even_far_out() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 32)
    scores = []
    for offset in (0, 7, 300_000):
        at = rotary_angles(torch.tensor([[offset + 5]]), 32), rotary_angles(torch.tensor([[offset]]), 32)
        scores.append((rotate(q, at[0]) * rotate(k, at[1])).sum())
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[2], scores[0], atol=1e-5, rtol=1e-5)
