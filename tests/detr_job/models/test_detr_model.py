"""Names and sizes of the published model; what padding and norms change, and what they do not."""

import copy
import re

import pytest
import torch
from torch import nn

from detr_job.models.attention import recorded_weights
from detr_job.models.detr.network import Detr
from detr_job.models.detr.transformer import Encoder, Transformer
from detr_job.models.position_encoding import SinePositionEncoding
from run_config.families.detr import DetrModel
from tests.detr_job.golden import padded_pair

SMALL = DetrModel(backbone="resnet18", hidden_dim=32, heads=4, feedforward_dim=64, queries=7, dropout=0.0)
LINEAR = r"(weight|bias)"
NORM = r"(weight|bias|running_mean|running_var)"
ATTENTION = rf"(in_proj_weight|in_proj_bias|out_proj\.{LINEAR})"
PUBLISHED_NAMES = re.compile(
    rf"""backbone\.0\.body\.(conv1\.weight|bn1\.{NORM}
        |layer[1-4]\.\d+\.(conv[1-3]\.weight|bn[1-3]\.{NORM})
        |layer[1-4]\.0\.downsample\.(0\.weight|1\.{NORM}))
    |transformer\.encoder\.layers\.[0-5]\.(self_attn\.{ATTENTION}|(linear[12]|norm[12])\.{LINEAR})
    |transformer\.decoder\.layers\.[0-5]\.((self_attn|multihead_attn)\.{ATTENTION}|(linear[12]|norm[123])\.{LINEAR})
    |transformer\.decoder\.norm\.{LINEAR}
    |class_embed\.{LINEAR}|bbox_embed\.layers\.[012]\.{LINEAR}|query_embed\.weight|input_proj\.{LINEAR}""",
    re.VERBOSE,
)


@pytest.mark.parametrize(
    ("changes", "tensors", "parameters", "trained", "further_names"),
    [
        # published: 458 tensors and so on, counted in the reference
        ({}, 458, 41_524_768, 41_302_368, set()),
        ({"dilation": True}, 458, 41_524_768, 41_302_368, set()),
        ({"backbone": "resnet101"}, 713, 60_464_672, 60_242_272, set()),
        # R50's 41,524,768 without 23,454,912 of its trunk and 2048 x 256 of the projection, with R18's
        # 11,166,912 and 512 x 256
        ({"backbone": "resnet18"}, 293, 28_843_552, 28_686_688, set()),
        # 2 x 50 x 128 more
        (
            {"position_embedding": "learned"},
            460,
            41_537_568,
            41_315_168,
            {"backbone.1.row_embed.weight", "backbone.1.col_embed.weight"},
        ),
        # one more norm of 2 x 256
        (
            {"pre_norm": True},
            460,
            41_525_280,
            41_302_880,
            {"transformer.encoder.norm.weight", "transformer.encoder.norm.bias"},
        ),
    ],
)
def test_names_and_sizes_are_the_published_ones(changes, tensors, parameters, trained, further_names):
    with torch.device("meta"):
        model = Detr(DetrModel(**changes), 91)
    state = model.state_dict()
    assert len(state) == tensors
    assert {name for name in state if not PUBLISHED_NAMES.fullmatch(name)} == further_names
    assert sum(each.numel() for each in model.parameters()) == parameters
    assert sum(each.numel() for each in model.parameters() if each.requires_grad) == trained
    assert state["class_embed.weight"].shape == (92, 256)
    assert state["query_embed.weight"].shape == (100, 256)
    assert state["transformer.decoder.layers.5.multihead_attn.in_proj_weight"].shape == (768, 256)


def test_fresh_weights_are_drawn_as_published():
    torch.manual_seed(0)
    model = Detr(DetrModel(backbone="resnet18"), 3)
    attention = model.transformer.encoder.layers[0].self_attn
    bound = (6 / (768 + 256)) ** 0.5  # Xavier of the packed matrix as one
    assert attention.in_proj_weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert not attention.in_proj_bias.any()
    assert not attention.out_proj.bias.any()
    assert model.query_embed.weight.std().item() == pytest.approx(1, abs=0.02)
    assert model.class_embed.bias.abs().max() <= 256**-0.5  # PyTorch's own, no prior


def test_padding_changes_nothing_for_the_transformer():
    # Of the transformer alone: to the convolutions before it, padding is an edge in another place.
    # Whole images are therefore only batched with padding in training.
    torch.manual_seed(0)
    transformer = Transformer(SMALL).eval()
    sine, queries = SinePositionEncoding(32), torch.randn(7, 32)
    image = torch.randn(1, 5, 6, 32)
    padding = torch.ones(2, 8, 9, dtype=torch.bool)
    padding[0, :5, :6] = False
    padding[1] = False
    batch = torch.randn(2, 8, 9, 32)
    batch[0, :5, :6] = image
    cpu = image.device
    alone = transformer(image.flatten(1, 2), sine(5, 6, None, cpu).flatten(1, 2), queries, None)
    together = transformer(batch.flatten(1, 2), sine(8, 9, padding, cpu).flatten(1, 2), queries, padding.flatten(1))
    torch.testing.assert_close(together[:, :1], alone, atol=1e-5, rtol=1e-5)


def test_an_image_in_a_batch_of_equal_shapes_gives_what_it_gives_alone():
    torch.manual_seed(0)
    model = Detr(SMALL, 3).eval()
    images = torch.randn(3, 3, 96, 64)
    together, masked = model(images), model(images, torch.zeros(3, 96, 64, dtype=torch.bool))
    torch.testing.assert_close(together.logits, masked.logits, atol=1e-5, rtol=1e-5)
    for index in range(3):
        alone = model(images[index : index + 1])
        torch.testing.assert_close(alone.logits[:, 0], together.logits[:, index], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.boxes[:, 0], together.boxes[:, index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_encoder_layers_are_pytorchs_when_positions_are_zero(pre_norm: bool):
    torch.manual_seed(0)
    encoder = Encoder(SMALL.model_copy(update={"pre_norm": pre_norm})).eval()
    twin = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=pre_norm),
        num_layers=6,
        norm=nn.LayerNorm(32) if pre_norm else None,
        enable_nested_tensor=False,
    ).train()  # eval() takes a path of its own
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    twin.load_state_dict(encoder.state_dict())
    src = torch.randn(2, 11, 32)
    torch.testing.assert_close(encoder(src, torch.zeros_like(src), None), twin(src), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_decoder_layers_are_pytorchs_when_positions_are_zero(pre_norm: bool):
    torch.manual_seed(0)
    decoder = Transformer(SMALL.model_copy(update={"pre_norm": pre_norm})).decoder.eval()
    twin = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=pre_norm),
        num_layers=6,
        norm=nn.LayerNorm(32),
    ).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    twin.load_state_dict(decoder.state_dict())
    memory = torch.randn(2, 11, 32)
    hs = decoder(torch.zeros(1, 7, 32), memory, torch.zeros(1, 11, 32), None)
    expected = twin(torch.zeros(2, 7, 32), memory)
    torch.testing.assert_close(hs[-1], expected, atol=1e-5, rtol=1e-5)


def test_attention_weights_can_be_looked_at():
    model = Detr(SMALL, 3).eval()
    images, mask = padded_pair()
    attention = model.transformer.decoder.layers[-1].multihead_attn
    with recorded_weights(attention) as weights:
        recorded = model(images, mask)
    assert len(weights) == 1
    assert weights[0].shape == (2, 4, 7, 5 * 6)
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 4, 7))
    assert not weights[0][0].view(4, 7, 5, 6)[:, :, 4].any(), "nobody looks at the first image's padding"
    assert torch.equal(model(images, mask).logits, recorded.logits)
    assert len(weights) == 1, "nothing is recorded after the block"


def test_recorded_weights_are_those_that_attention_uses():
    torch.manual_seed(0)
    attention = Transformer(SMALL).decoder.layers[0].multihead_attn.eval()
    query, key, value = torch.randn(2, 7, 32), torch.randn(2, 11, 32), torch.randn(2, 11, 32)
    attend = torch.rand(2, 1, 1, 11) < 0.7
    attend[..., 0] = True
    v = (value @ attention.in_proj_weight[64:].T).view(2, 11, 4, 8).transpose(1, 2)
    mixed = (attention.weights(query, key, attend) @ v).transpose(1, 2).flatten(2)
    expected = attention.out_proj(mixed)
    torch.testing.assert_close(attention(query, key, value, attend), expected, atol=1e-5, rtol=1e-5)


def test_a_copy_of_the_model_predicts_the_same():
    model = Detr(SMALL, 3).eval()
    images, mask = padded_pair()
    expected = model(images, mask)
    assert torch.equal(copy.deepcopy(model)(images, mask).logits, expected.logits)


def test_dropout_in_attention_keeps_the_mean_of_what_is_seen():
    torch.manual_seed(0)
    attention = Transformer(SMALL.model_copy(update={"dropout": 0.2})).encoder.layers[0].self_attn
    query, value = torch.randn(1, 7, 32), torch.randn(1, 7, 32)
    with torch.no_grad():
        expected = attention.eval()(query, query, value)
        drawn = torch.stack([attention.train()(query, query, value) for _ in range(1000)])
    error = (drawn.mean(0) - expected) / (drawn.std(0) / 1000**0.5 + 1e-6)
    assert drawn.std(0).min() > 0
    assert error.abs().max() < 6  # standard errors
