"""Rotary embedding on packed QKV: against the formula in fp64, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from salamandra_kernels import RopeScaling, rope_split_qkv, rope_table

HEAD_DIM = 16
SHAPES = {"mha": (4, 1), "gqa": (2, 4), "mqa": (1, 6)}  # groups, query heads per group


def packed(shape: str, *, sequence: int = 7, batch: int = 2, head_dim: int = HEAD_DIM) -> Tensor:
    groups, q_per_group = SHAPES[shape]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sequence, batch, groups, (q_per_group + 2) * head_dim, generator=generator)


def expected(mixed: Tensor, table: Tensor, q_per_group: int, positions: Tensor | None = None) -> Tensor:
    """rotate_half by the book, out of place, in fp64 and differentiable."""
    head_dim = table.shape[1]
    heads = mixed.double().unflatten(-1, (q_per_group + 2, head_dim))
    rows = table[: mixed.shape[0], None] if positions is None else table[positions]
    cos, sin = rows.double()[:, :, None, None].chunk(2, -1)
    first, second = heads[..., :-1, :].chunk(2, -1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return torch.cat((rotated, heads[..., -1:, :]), 3).flatten(-2)


def joined(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Packs what rope_split_qkv returns, as the packed layout has it."""
    grouped = query.unflatten(2, (key.shape[2], -1))
    return torch.cat((grouped, key.unsqueeze(3), value.unsqueeze(3)), 3).flatten(-2)


def rotate(mixed: Tensor, table: Tensor, q_per_group: int, positions: Tensor | None = None) -> Tensor:
    head_dim = table.shape[1]
    outputs = rope_split_qkv(mixed, table, q_per_group=q_per_group, head_dim=head_dim, positions=positions)
    return joined(*outputs)


def check(
    device: torch.device, dtype: torch.dtype, bound: float, shape: str, positions: Tensor | None
) -> None:
    q_per_group = SHAPES[shape][1]
    table = rope_table(64, HEAD_DIM, 10_000.0)
    mixed = packed(shape).to(dtype)
    upstream = torch.randn_like(mixed)
    reference_input = mixed.double().requires_grad_()
    want = expected(reference_input, table, q_per_group, positions)
    want.backward(upstream.double())
    leaf = mixed.to(device).requires_grad_()
    where = None if positions is None else positions.to(device)
    got = rotate(leaf * 1, table.to(device), q_per_group, where)
    got.backward(upstream.to(device))
    assert reference_input.grad is not None and leaf.grad is not None
    for mine, theirs in ((got.detach(), want.detach()), (leaf.grad, reference_input.grad)):
        assert (mine.cpu().double() - theirs).abs().max() <= bound * theirs.abs().max()
    value = slice(-HEAD_DIM, None)
    assert torch.equal(got.detach().cpu()[..., value], mixed[..., value])
    assert torch.equal(leaf.grad.cpu()[..., value], upstream[..., value])


@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_and_gradient_equal_the_formula(shape: str) -> None:
    check(torch.device("cpu"), torch.float32, 1e-6, shape, None)
    check(torch.device("cpu"), torch.bfloat16, 2**-8, shape, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_rotation_and_gradient_equal_the_formula(
    kernel_device: torch.device,
    rounding: dict[torch.dtype, float],
    shape: str,
    dtype: torch.dtype,
) -> None:
    check(kernel_device, dtype, rounding[dtype], shape, None)


def documents() -> Tensor:
    """Positions [7, 2] of two packed rows: documents of 3 + 4 tokens, and one that starts at offset 40."""
    return torch.stack((torch.tensor([0, 1, 2, 0, 1, 2, 3]), torch.arange(40, 47)), dim=1)


def test_packed_documents_and_offsets_take_their_own_positions() -> None:
    check(torch.device("cpu"), torch.float32, 1e-6, "gqa", documents())


def test_kernel_takes_positions_per_token(
    kernel_device: torch.device, rounding: dict[torch.dtype, float]
) -> None:
    check(kernel_device, torch.float32, rounding[torch.float32], "gqa", documents())


def test_kernel_head_size_need_not_be_a_power_of_two(kernel_device: torch.device) -> None:
    table = rope_table(7, 24, 10_000.0).to(kernel_device)
    mixed = packed("mha", head_dim=24)
    got = rotate(mixed.to(kernel_device, copy=True), table, 1)
    torch.testing.assert_close(got.cpu().double(), expected(mixed, table.cpu(), 1), atol=1e-6, rtol=0)


@pytest.mark.usefixtures("poisoned_memory")
def test_kernel_takes_gradients_of_any_stride_and_fills_every_element(kernel_device: torch.device) -> None:
    """Attention hands back gradients laid out [B, heads, S, D], and key and value differently."""
    groups, q_per_group = SHAPES["gqa"]
    table = rope_table(7, HEAD_DIM, 10_000.0).to(kernel_device)
    leaf = packed("gqa").to(kernel_device).requires_grad_()
    outputs = rope_split_qkv(leaf * 1, table, q_per_group=q_per_group, head_dim=HEAD_DIM)
    upstream = [torch.randn(2, heads, 7, HEAD_DIM) for heads in (groups * q_per_group, groups, groups)]
    gradients = [g.to(kernel_device).permute(2, 0, 1, 3) for g in upstream]
    gradients[2] = gradients[2].contiguous()
    torch.autograd.backward(outputs, gradients)
    reference = packed("gqa").double().requires_grad_()
    want = expected(reference, table.cpu(), q_per_group)
    want.backward(joined(*(g.permute(2, 0, 1, 3) for g in upstream)).double())
    assert leaf.grad is not None and reference.grad is not None
    torch.testing.assert_close(leaf.grad.cpu().double(), reference.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_query_of_grouped_attention_is_copied(shape: str) -> None:
    mixed = packed(shape)
    table = rope_table(7, HEAD_DIM, 1e4)
    outputs = rope_split_qkv(mixed, table, q_per_group=SHAPES[shape][1], head_dim=HEAD_DIM)
    storage = mixed.untyped_storage().data_ptr()
    in_place = [out.untyped_storage().data_ptr() == storage for out in outputs]
    assert in_place == [shape == "mha", True, True]


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_overwriting_a_saved_input_is_noticed(kernel_device: torch.device, shape: str) -> None:
    """A graph that saved the packed QKV must not silently see the rotated one in its backward pass."""
    table = rope_table(7, HEAD_DIM, 1e4).to(kernel_device)
    mixed = packed(shape).to(kernel_device).requires_grad_() * 1
    other = mixed.square().sum()
    rope_split_qkv(mixed, table, q_per_group=SHAPES[shape][1], head_dim=HEAD_DIM)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


def test_backward_undoes_forward() -> None:
    table = rope_table(7, HEAD_DIM, 1e4)
    leaf = packed("gqa").requires_grad_()
    rotated = rotate(leaf * 1, table, 4)
    rotated.backward(rotated.detach().clone())
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, leaf.detach(), atol=1e-6, rtol=0)


def test_scores_depend_on_the_distance_only() -> None:
    one = torch.randn(1, 1, 1, 3 * HEAD_DIM).expand(9, 1, 1, 3 * HEAD_DIM).clone()
    table = rope_table(9, HEAD_DIM, 1e4)
    query, key, _ = rope_split_qkv(one, table, q_per_group=1, head_dim=HEAD_DIM)
    scores = query[:, 0, 0] @ key[:, 0, 0].T
    for distance in range(8):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations_give_the_same_gradients(reentrant: bool) -> None:
    torch.manual_seed(3)
    table = rope_table(7, HEAD_DIM, 1e4)
    linear = torch.nn.Linear(8, 2 * 6 * HEAD_DIM, bias=False)
    x = torch.randn(7, 2, 8, requires_grad=True)

    def layer(x: Tensor) -> Tensor:
        return rotate(linear(x).view(7, 2, 2, -1), table, 4)

    upstream = torch.randn(7, 2, 2, 6 * HEAD_DIM)
    plain = torch.autograd.grad(layer(x), (x, linear.weight), upstream)
    if reentrant:
        checkpoint(layer, x, use_reentrant=True).backward(upstream)
        again = (x.grad, linear.weight.grad)
    else:
        again = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False), (x, linear.weight), upstream)
    for first, second in zip(plain, again, strict=True):
        assert second is not None and torch.equal(first, second)


def test_gradcheck_in_fp64() -> None:
    leaf = packed("gqa", sequence=2, batch=1).double().requires_grad_()
    table = rope_table(2, HEAD_DIM, 1e4)
    assert torch.autograd.gradcheck(lambda x: rotate(x * 1, table, 4), (leaf,))


def test_table_equals_hugging_face() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    from transformers import LlamaConfig

    rotary = llama.LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=64, num_attention_heads=4, rope_theta=10_000.0)
    )
    cos, sin = rotary(torch.zeros(1, 1), torch.arange(8192)[None])
    table = rope_table(8192, 16, 10_000.0)
    assert torch.equal(table[:, :8], cos[0, :, :8]) and torch.equal(table[:, 8:], sin[0, :, :8])


def test_scaled_table_equals_hugging_face_llama3() -> None:
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    from transformers import LlamaConfig

    published = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, max_position_embeddings=65536, rope_parameters=published
    )
    frequencies, _ = rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    table = rope_table(torch.tensor([1]), 128, 500_000.0, scaling=RopeScaling(8.0, 8192))
    torch.testing.assert_close(table[0, 64:], frequencies.sin(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q_per_group": 3, "head_dim": HEAD_DIM}, "expected .S, B, G, 80."),
        ({"q_per_group": 4, "head_dim": HEAD_DIM, "rows": 6}, "ends at position 6"),
        ({"q_per_group": 10, "head_dim": 8}, "expected .positions, 8."),
        (
            {"q_per_group": 4, "head_dim": HEAD_DIM, "positions": torch.zeros(7, 1)},
            "expected .S, B. = .7, 2.",
        ),
    ],
)
def test_wrong_shapes_are_refused(arguments: dict[str, object], message: str) -> None:
    table = rope_table(int(str(arguments.pop("rows", 7))), HEAD_DIM, 1e4)
    with pytest.raises(ValueError, match=message):
        rope_split_qkv(packed("gqa"), table, **arguments)  # type: ignore[arg-type]


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="must be even"):
        rope_table(4, 15, 1e4)
    with pytest.raises(ValueError, match="low_frequency_factor"):
        RopeScaling(8.0, 8192, 4.0, 1.0)
