"""The DETR of the `transformers` library with our weights: the same model in an independent implementation.

It is the baseline of `train_step.py`, and the independent check in the tests of detr_job.
"""

import re

from torch import Tensor
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from detr_job.models.detr.network import Detr
from run_config.families.detr import DetrModel

RESNETS = {
    "resnet18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
}
RENAMED = (  # transformers' name → ours; the first match counts
    (r"^model\.backbone\.model\.embedder\.embedder\.convolution", "backbone.0.body.conv1"),
    (r"^model\.backbone\.model\.embedder\.embedder\.normalization", "backbone.0.body.bn1"),
    (r"^model\.query_position_embeddings", "query_embed"),
    (r"^model\.input_projection", "input_proj"),
    (r"^model\.decoder\.layernorm", "transformer.decoder.norm"),
    (r"^class_labels_classifier", "class_embed"),
    (r"^bbox_predictor", "bbox_embed"),
)
BLOCK = re.compile(
    r"^model\.backbone\.model\.encoder\.stages\.(\d)\.layers\.(\d+)\.(shortcut|layer\.\d)\.(\w+)\.(\w+)$"
)
LAYER = re.compile(r"^model\.(encoder|decoder)\.layers\.(\d+)\.(.+)\.(weight|bias)$")
SUBLAYERS = {
    "encoder": {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2"},
    "decoder": {"self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2", "final_layer_norm": "norm3"},
}
SHARED = {"mlp.fc1": "linear1", "mlp.fc2": "linear2"}
PROJECTIONS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


def transformers_detr(model: Detr, config: DetrModel, num_classes: int) -> DetrForObjectDetection:
    """The same network in transformers, with the same trainable parameters, dropouts and weights."""
    layer_type, depths, widths = RESNETS[config.backbone]
    twin = DetrForObjectDetection(
        DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone_config=ResNetConfig(
                layer_type=layer_type,
                depths=depths,
                hidden_sizes=widths,
                embedding_size=64,
                out_features=["stage4"],
            ),
            num_labels=num_classes,
            auxiliary_loss=True,
            dropout=config.dropout,
            attention_dropout=config.dropout,
            activation_dropout=config.dropout,
            d_model=config.hidden_dim,
            encoder_ffn_dim=config.feedforward_dim,
            decoder_ffn_dim=config.feedforward_dim,
            encoder_attention_heads=config.heads,
            decoder_attention_heads=config.heads,
            num_queries=config.queries,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
        )
    )
    ours = model.state_dict()
    twin.load_state_dict({name: _ours(name, ours) for name in twin.state_dict()})
    # Without timm, transformers looks for the stages under another name and freezes the whole backbone.
    for name, parameter in twin.model.backbone.named_parameters():
        parameter.requires_grad_(re.search(r"stages\.[123]\.", name) is not None)
    return twin


def _ours(name: str, ours: dict[str, Tensor]) -> Tensor:
    """The tensor in our state dict that transformers calls `name`."""
    if block := BLOCK.match(name):
        stage, index, part, kind, leaf = block.groups()
        convolution = kind == "convolution"
        if part == "shortcut":
            module = f"downsample.{0 if convolution else 1}"
        else:
            module = f"{'conv' if convolution else 'bn'}{int(part[-1]) + 1}"
        return ours[f"backbone.0.body.layer{int(stage) + 1}.{index}.{module}.{leaf}"]
    if layer := LAYER.match(name):
        side, index, sublayer, leaf = layer.groups()
        prefix = f"transformer.{side}.layers.{index}"
        if "_attn." in sublayer:
            attention, projection = sublayer.split(".")
            attention = {"self_attn": "self_attn", "encoder_attn": "multihead_attn"}[attention]
            if projection == "o_proj":
                return ours[f"{prefix}.{attention}.out_proj.{leaf}"]
            return ours[f"{prefix}.{attention}.in_proj_{leaf}"].chunk(3)[PROJECTIONS[projection]]
        return ours[f"{prefix}.{(SHARED | SUBLAYERS[side])[sublayer]}.{leaf}"]
    for pattern, replacement in RENAMED:
        if re.search(pattern, name):
            return ours[re.sub(pattern, replacement, name)]
    raise KeyError(name)
