"""The published checkpoint by name and shape, written down from its inventory: 832 + 605 + 328 tensors.

Nothing here comes from the modules that load it: it is what they are held against.
"""

from __future__ import annotations

from collections.abc import Iterator

Shape = tuple[int, ...]

# The published file's fields in their order; it has 1,099 bytes.
FLOW_YAML = """\
flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec
    input_size: 512
    output_size: 80
    spk_embed_dim: 192
    output_type: 'mel'
    vocab_size: 6561
    encoder: !new:cosyvoice2.transformer.upsample_encoder_v2.UpsampleConformerEncoderV2
        input_size: 512
        output_size: 512
        input_layer: 'linear'
        pre_lookahead_len: 3
        num_blocks: 6
        num_up_blocks: 4
        up_stride: 2
        up_scale_factor: 2
        attention_heads: 8
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        key_bias: true
        linear_units: 2048
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
    decoder: !new:cosyvoice2.flow.flow_matching.CausalConditionalCFM
        inference_cfg_rate: 0.7
        estimator: !new:cosyvoice2.flow.decoder_dit.DiT
            in_channels: 320
            out_channels: 80
            mlp_ratio: 4.0
            depth: 16
            num_heads: 8
            head_dim: 64
            hidden_size: 512
"""


def _linear(name: str, rows: int, columns: int, *, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _conv(name: str, outputs: int, inputs: int, kernel: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, kernel)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


# --- model-0000?-of-00004.safetensors -------------------------------------------------------------------------------


def language_tensors() -> dict[str, Shape]:
    """339 of the language model, 487 of the audio encoder, 6 of the adapter."""
    return dict([*_language(), *_encoder(), *_adapter()])


def _language() -> Iterator[tuple[str, Shape]]:
    yield "model.embed_tokens.weight", (158720, 3584)
    yield "lm_head.weight", (158720, 3584)
    yield "model.norm.weight", (3584,)
    for i in range(28):
        at = f"model.layers.{i}"
        yield from _linear(f"{at}.self_attn.q_proj", 3584, 3584)
        yield from _linear(f"{at}.self_attn.k_proj", 512, 3584)
        yield from _linear(f"{at}.self_attn.v_proj", 512, 3584)
        yield from _linear(f"{at}.self_attn.o_proj", 3584, 3584, bias=False)
        yield from _linear(f"{at}.mlp.gate_proj", 18944, 3584, bias=False)
        yield from _linear(f"{at}.mlp.up_proj", 18944, 3584, bias=False)
        yield from _linear(f"{at}.mlp.down_proj", 3584, 18944, bias=False)
        yield f"{at}.input_layernorm.weight", (3584,)
        yield f"{at}.post_attention_layernorm.weight", (3584,)


def _encoder() -> Iterator[tuple[str, Shape]]:
    yield from _conv("encoder.conv1", 1280, 128, 3)
    yield from _conv("encoder.conv2", 1280, 1280, 3)
    yield "encoder.positional_embedding.weight", (1500, 1280)
    yield from _norm("encoder.after_norm", 1280)
    for i in range(32):
        at = f"encoder.blocks.{i}"
        for part in ("query", "value", "out"):
            yield from _linear(f"{at}.attn.{part}", 1280, 1280)
        yield f"{at}.attn.key.weight", (1280, 1280)
        yield from _norm(f"{at}.attn_ln", 1280)
        yield from _linear(f"{at}.mlp.0", 5120, 1280)
        yield from _linear(f"{at}.mlp.2", 1280, 5120)
        yield from _norm(f"{at}.mlp_ln", 1280)


def _adapter() -> Iterator[tuple[str, Shape]]:
    yield from _conv("adapter.conv", 1280, 1280, 3)
    yield from _linear("adapter.linear1", 2048, 1280)
    yield from _linear("adapter.linear2", 3584, 2048)


# --- token2wav/flow.pt ----------------------------------------------------------------------------------------------


def flow_tensors() -> dict[str, Shape]:
    """605: embedding, speaker, conformer with ten blocks, DiT with sixteen."""
    return dict([*_conformer(), *_dit()])


def _conformer() -> Iterator[tuple[str, Shape]]:
    yield "input_embedding.weight", (6561, 512)
    yield from _linear("spk_embed_affine_layer", 80, 192)
    yield from _linear("encoder_proj", 80, 512)
    for part in ("embed", "up_embed"):
        yield from _linear(f"encoder.{part}.out.0", 512, 512)
        yield from _norm(f"encoder.{part}.out.1", 512)
    yield from _conv("encoder.pre_lookahead_layer.conv1", 512, 512, 4)
    yield from _conv("encoder.pre_lookahead_layer.conv2", 512, 512, 3)
    yield from _conv("encoder.up_layer.conv", 512, 512, 5)
    yield from _norm("encoder.after_norm", 512)
    blocks = [*(f"encoders.{i}" for i in range(6)), *(f"up_encoders.{i}" for i in range(4))]
    for block in blocks:
        at = f"encoder.{block}"
        for part in ("q", "k", "v", "out"):
            yield from _linear(f"{at}.self_attn.linear_{part}", 512, 512)
        yield f"{at}.self_attn.linear_pos.weight", (512, 512)
        yield f"{at}.self_attn.pos_bias_u", (8, 64)
        yield f"{at}.self_attn.pos_bias_v", (8, 64)
        yield from _linear(f"{at}.feed_forward.w_1", 2048, 512)
        yield from _linear(f"{at}.feed_forward.w_2", 512, 2048)
        yield from _norm(f"{at}.norm_ff", 512)
        yield from _norm(f"{at}.norm_mha", 512)


def _dit() -> Iterator[tuple[str, Shape]]:
    top = "decoder.estimator"
    yield from _linear(f"{top}.t_embedder.mlp.0", 512, 256)
    yield from _linear(f"{top}.t_embedder.mlp.2", 512, 512)
    yield from _linear(f"{top}.in_proj", 512, 320)
    yield from _linear(f"{top}.final_layer.adaLN_modulation.1", 1024, 512)
    yield from _linear(f"{top}.final_layer.linear", 80, 512)
    for i in range(16):
        at = f"{top}.blocks.{i}"
        for part in ("to_q", "to_k", "to_v", "proj"):
            yield from _linear(f"{at}.attn.{part}", 512, 512)
        yield from _norm(f"{at}.attn.q_norm", 64)
        yield from _norm(f"{at}.attn.k_norm", 64)
        yield from _linear(f"{at}.mlp.fc1", 2048, 512)
        yield from _linear(f"{at}.mlp.fc2", 512, 2048)
        yield from _conv(f"{at}.conv.block.1", 512, 512, 3)
        yield from _norm(f"{at}.conv.block.3", 512)
        yield from _conv(f"{at}.conv.block.6", 512, 512, 3)
        yield from _linear(f"{at}.adaLN_modulation.1", 4608, 512)


# --- token2wav/hift.pt ----------------------------------------------------------------------------------------------


def hift_tensors() -> dict[str, Shape]:
    """328: length and direction (weight norm) of every convolution but three, as they are stored."""
    return dict(_hift())


def _normed(name: str, outputs: int, inputs: int, kernel: int, *, bias: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.parametrizations.weight.original0", (outputs, 1, 1)
    yield f"{name}.parametrizations.weight.original1", (outputs, inputs, kernel)
    yield f"{name}.bias", (bias,)


def _resblock(name: str, channels: int, kernel: int) -> Iterator[tuple[str, Shape]]:
    for step in range(3):
        for half in (1, 2):
            yield from _normed(f"{name}.convs{half}.{step}", channels, channels, kernel, bias=channels)
            yield f"{name}.activations{half}.{step}.alpha", (channels,)


def _hift() -> Iterator[tuple[str, Shape]]:
    yield from _normed("conv_pre", 512, 80, 7, bias=512)
    yield from _normed("conv_post", 18, 64, 7, bias=18)
    yield from _linear("m_source.l_linear", 1, 9)
    widths, up_kernels = (256, 128, 64), (16, 11, 7)
    for i, (width, kernel) in enumerate(zip(widths, up_kernels, strict=True)):
        yield from _normed(f"ups.{i}", 2 * width, width, kernel, bias=width)  # transposed: inputs come first
    for i, (width, kernel) in enumerate(zip(widths, (30, 6, 1), strict=True)):
        yield from _conv(f"source_downs.{i}", width, 18, kernel)
    for i, (width, kernel) in enumerate(zip(widths, (7, 7, 11), strict=True)):
        yield from _resblock(f"source_resblocks.{i}", width, kernel)
    for i in range(9):
        yield from _resblock(f"resblocks.{i}", widths[i // 3], (3, 7, 11)[i % 3])
    for i in range(5):
        yield from _normed(f"f0_predictor.condnet.{2 * i}", 512, 512 if i else 80, 3, bias=512)
    yield from _linear("f0_predictor.classifier", 1, 512)
