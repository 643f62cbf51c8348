"""Names and shapes of the tensors of flow.pt, written out apart from the network that loads them.

The benchmark writes a flow.pt of its own and has both sides load it, so neither may decide what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from scripts.bench.gpu_parts.shapes import FlowSizes

Shapes = dict[str, tuple[int, ...]]

_MELS, _SPEAKER, _TIME, _VOCABULARY = 80, 192, 256, 6561


def flow_tensors(sizes: FlowSizes) -> Shapes:
    """Name to shape: 605 tensors and 155,802,352 numbers at the published sizes."""
    return dict(_all(sizes))


def is_norm(name: str) -> bool:
    """Whether a tensor of flow.pt belongs to a layer norm."""
    ends = (".out.1", "norm_ff", "norm_mha", "after_norm", "q_norm", "k_norm", "conv.block.3")
    return name.rpartition(".")[0].endswith(ends)


def _all(s: FlowSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "input_embedding.weight", (_VOCABULARY, s.width)
    yield from _affine("spk_embed_affine_layer", _MELS, _SPEAKER)
    for embed in ("encoder.embed", "encoder.up_embed"):
        yield from _affine(f"{embed}.out.0", s.width, s.width)
        yield from _affine(f"{embed}.out.1", s.width)
    yield from _affine("encoder.pre_lookahead_layer.conv1", s.width, s.width, 4)
    yield from _affine("encoder.pre_lookahead_layer.conv2", s.width, s.width, 3)
    yield from _affine("encoder.up_layer.conv", s.width, s.width, 5)
    for stack, count in (("encoders", s.blocks), ("up_encoders", s.up_blocks)):
        for i in range(count):
            yield from _conformer_block(f"encoder.{stack}.{i}", s)
    yield from _affine("encoder.after_norm", s.width)
    yield from _affine("encoder_proj", _MELS, s.width)
    yield from _dit("decoder.estimator", s)


def _affine(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _conformer_block(name: str, s: FlowSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for bias in "uv":
        yield f"{name}.self_attn.pos_bias_{bias}", (s.heads, s.width // s.heads)
    for part in ("q", "k", "v", "out"):
        yield from _affine(f"{name}.self_attn.linear_{part}", s.width, s.width)
    yield f"{name}.self_attn.linear_pos.weight", (s.width, s.width)
    yield from _affine(f"{name}.feed_forward.w_1", s.hidden, s.width)
    yield from _affine(f"{name}.feed_forward.w_2", s.width, s.hidden)
    yield from _affine(f"{name}.norm_ff", s.width)
    yield from _affine(f"{name}.norm_mha", s.width)


def _dit(name: str, s: FlowSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = s.dit_width
    inner, hidden = s.dit_heads * s.dit_head, int(width * s.dit_ratio)
    yield from _affine(f"{name}.t_embedder.mlp.0", width, _TIME)
    yield from _affine(f"{name}.t_embedder.mlp.2", width, width)
    yield from _affine(f"{name}.in_proj", width, 4 * _MELS)
    for i in range(s.dit_depth):
        block = f"{name}.blocks.{i}"
        for part in ("q", "k", "v"):
            yield from _affine(f"{block}.attn.to_{part}", inner, width)
        yield from _affine(f"{block}.attn.q_norm", s.dit_head)
        yield from _affine(f"{block}.attn.k_norm", s.dit_head)
        yield from _affine(f"{block}.attn.proj", width, inner)
        yield from _affine(f"{block}.mlp.fc1", hidden, width)
        yield from _affine(f"{block}.mlp.fc2", width, hidden)
        yield from _affine(f"{block}.conv.block.1", width, width, 3)
        yield from _affine(f"{block}.conv.block.3", width)
        yield from _affine(f"{block}.conv.block.6", width, width, 3)
        yield from _affine(f"{block}.adaLN_modulation.1", 9 * width, width)
    yield from _affine(f"{name}.final_layer.adaLN_modulation.1", 2 * width, width)
    yield from _affine(f"{name}.final_layer.linear", _MELS, width)
