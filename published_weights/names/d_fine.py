"""The tensor names of published checkpoints: those of D-FINE's own code, and those of Hugging Face Transformers.

This network has the names of D-FINE's code. DEIM and RT-DETRv4 use the same code and names.
"""

import re
from collections.abc import Mapping

from published_weights.names.transformers_library import Array, Concatenate, authors_names

# Constants that this network computes, the second name of two tensors, and RT-DETRv4's link to its teacher.
_UNUSED = re.compile(
    r"decoder\.(anchors|valid_mask)|decoder\.decoder\.(up|reg_scale)|.*\.num_points_scale|encoder\.feature_projector\..*"
)
TEACHER_LINK = "encoder.feature_projector."
TRANSFORMERS = "encoder_input_proj."
_RULES = (
    (r"^backbone\.model\.embedder\.", "backbone.stem."),
    (r"^backbone\.model\.encoder\.", "backbone."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.bn."),
    (r"^(encoder|decoder)_input_proj\.(\d+)\.0\.", r"\1.input_proj.\2.conv."),
    (r"^(encoder|decoder)_input_proj\.(\d+)\.1\.", r"\1.input_proj.\2.norm."),
    (r"^encoder\.aifi\.", "encoder.encoder."),
    (r"^(encoder\..*_blocks\.\d+)\.conv([14])\.", r"\1.cv\2."),
    (r"^(encoder\..*_blocks\.\d+)\.conv([23])\.", r"\1.cv\2.1."),
    (r"^(encoder\..*_blocks\.\d+)\.csp_rep1\.", r"\1.cv2.0."),
    (r"^(encoder\..*_blocks\.\d+)\.csp_rep2\.", r"\1.cv3.0."),
    (r"^(encoder\.downsample_convs\.\d+)\.conv", r"\1.0.cv"),
    (r"\.(fc1|mlp\.layers\.0)\.", ".linear1."),
    (r"\.(fc2|mlp\.layers\.1)\.", ".linear2."),
    (r"\.self_attn\.o_proj\.", ".self_attn.out_proj."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"^decoder\.(layers|lqe_layers)\.", r"decoder.decoder.\1."),
    (r"^enc_output\.0\.", "enc_output.proj."),
    (r"^enc_output\.1\.", "enc_output.norm."),
    (r"^(enc_|denoising_)", r"decoder.\1"),
    (r"^(decoder\.)?class_embed\.", "decoder.dec_score_head."),
    (r"^(decoder\.)?bbox_embed\.", "decoder.dec_bbox_head."),
)


def own_names(weights: Mapping[str, Array], concatenate: Concatenate[Array]) -> dict[str, Array]:
    """The tensors of a published checkpoint under the names of this network, without those that it does not have.

    concatenate: joins tensors along dimension 0.
    """
    if any(name.removeprefix("model.").startswith(TRANSFORMERS) for name in weights):
        weights = authors_names(weights, _RULES, r".*\.self_attn", concatenate)
    return {name: tensor for name, tensor in weights.items() if not _UNUSED.fullmatch(name)}
