"""Names of tensors in published files: the authors' own, and those of the transformers library."""

from collections.abc import Mapping

from published_weights.names.transformers_library import Array, Concatenate, authors_names

UNUSED = "_kp_active_mask"  # the authors' program writes it for key points; it is empty here

_HEADS = r"enc_output|enc_output_norm|enc_out_class_embed|enc_out_bbox_embed"
_RENAMED = (
    (r"^backbone\.backbone\.", "backbone.0.encoder.encoder."),
    (r"(layer\.\d+\.attention)\.q_proj\.", r"\1.attention.query."),
    (r"(layer\.\d+\.attention)\.k_proj\.", r"\1.attention.key."),
    (r"(layer\.\d+\.attention)\.v_proj\.", r"\1.attention.value."),
    (r"(layer\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"^backbone\.projector\.projector_layer\.", "backbone.0.projector.stages.0.0."),
    (r"^backbone\.projector\.layer_norm\.", "backbone.0.projector.stages.0.1."),
    (r"(stages\..*)bottlenecks\.", r"\1m."),
    (r"(stages\..*)conv([12])\.conv\.", r"\1cv\2.conv."),
    (r"(stages\..*)conv([12])\.norm\.", r"\1cv\2.bn."),
    (rf"^({_HEADS})\.", r"transformer.\1."),
    (r"^reference_point_embed\.", "refpoint_embed."),
    (r"^decoder\.layernorm\.", "transformer.decoder.norm."),
    (r"^decoder\.", "transformer.decoder."),
    (r"(decoder\.layers\.\d+)\.self_attn\.o_proj\.", r"\1.self_attn.out_proj."),
    (r"(decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"(decoder\.layers\.\d+)\.cross_attn_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.layer_norm\.", r"\1.norm3."),
    (r"(decoder\.layers\.\d+)\.mlp\.fc([12])\.", r"\1.linear\2."),
)


def own_names(weights: Mapping[str, Array], concatenate: Concatenate[Array]) -> dict[str, Array]:
    """The tensors under the authors' names, which are the network's. concatenate: joins tensors along dimension 0."""
    if not any(name.removeprefix("model.").startswith("backbone.backbone.") for name in weights):
        return {name: tensor for name, tensor in weights.items() if name != UNUSED}
    return authors_names(weights, _RENAMED, r".*decoder\.layers\.\d+\.self_attn", concatenate)
