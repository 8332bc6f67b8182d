"""The tensor names of Deformable DETR: the authors' own, and those of Hugging Face Transformers.

The authors save some heads several times: the ones that all decoder layers share once per layer, and those of a model
that refines boxes a second time below the decoder. Here each has one name.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from published_weights.names.transformers_library import Array, Concatenate, authors_names

_STAGE = r"^backbone\.0\.body\.encoder\.stages\.(\d+)\.layers\.(\d+)\."
_RULES = (
    (r"^backbone\.(conv_encoder\.)?model\.", "backbone.0.body."),
    # files that were saved with another ResNet than timm's
    (r"^(backbone\.0\.body\.)embedder\.embedder\.convolution\.", r"\1conv1."),
    (r"^(backbone\.0\.body\.)embedder\.embedder\.normalization\.", r"\1bn1."),
    (_STAGE + r"shortcut\.convolution\.", r"backbone.0.body.layer<\1>.\2.downsample.0."),
    (_STAGE + r"shortcut\.normalization\.", r"backbone.0.body.layer<\1>.\2.downsample.1."),
    (_STAGE + r"layer\.(\d+)\.convolution\.", r"backbone.0.body.layer<\1>.\2.conv<\3>."),
    (_STAGE + r"layer\.(\d+)\.normalization\.", r"backbone.0.body.layer<\1>.\2.bn<\3>."),
    (r"^query_position_embeddings\.", "query_embed."),
    (
        r"^(encoder|decoder|level_embed|reference_points|enc_output|enc_output_norm|pos_trans|pos_trans_norm)\b",
        r"transformer.\1",
    ),
    (r"\.(mlp\.)?fc([12])\.", r".linear\2."),
    (r"^(transformer\.encoder\..*)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(transformer\.encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.self_attn_layer_norm\.", ".norm2."),
    (r"\.encoder_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn\.o_proj\.", ".self_attn.out_proj."),
)
_HEAD = re.compile(r"(class_embed|bbox_embed)\.(\d+)\.(.*)")
_COUNTED = re.compile(r"<(\d+)>")


def own_names(weights: Mapping[str, Array], concatenate: Concatenate[Array]) -> dict[str, Array]:
    """The tensors of a published checkpoint under the names of this network.

    concatenate: joins tensors along dimension 0.
    """
    if any(name.removeprefix("model.") == "level_embed" for name in weights):
        renamed = authors_names(weights, _RULES, r"transformer\.decoder\.layers\.\d+\.self_attn", concatenate)
        # stages and convolutions count from 0 there, and from 1 here
        weights = {_COUNTED.sub(lambda found: str(int(found[1]) + 1), name): each for name, each in renamed.items()}
    found: dict[str, Array] = {}
    for name, tensor in weights.items():
        found.setdefault(re.sub(r"^transformer\.decoder\.(?=class_embed|bbox_embed)", "", name), tensor)
    if any(name.startswith("transformer.decoder.bbox_embed.") for name in weights):
        return found  # a model that refines boxes
    heads = [match for name in found if (match := _HEAD.fullmatch(name)) and match[2] != "0"]
    first = {match[0]: found.get(f"{match[1]}.0.{match[3]}") for match in heads}
    if all(_equal(found[name], tensor) for name, tensor in first.items()):
        found = {name: tensor for name, tensor in found.items() if name not in first}
    return found


def _equal(one: Array, other: Array | None) -> bool:
    if other is None:
        return False
    first, second = cast("Any", one), cast("Any", other)  # numpy's arrays and torch's tensors
    return bool(first.shape == second.shape and (first == second).all())
