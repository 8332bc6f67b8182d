"""The models of the `transformers` library that have the same architecture as ours: independent implementations.

They are the baselines of `train_step.py` and of `gpu.py`, and the independent check in the tests of detr_job.
"""

import re

from transformers import (
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
    PreTrainedModel,
    RfDetrConfig,
    RfDetrForObjectDetection,
)

from benchmarks.transformers_detr import transformers_detr
from detr_job.family import Family
from detr_job.models.d_fine.hgnetv2 import SIZES
from detr_job.models.detr.network import Detr
from run_config.families.d_fine import DFineModel
from run_config.families.deformable_detr import DeformableDetrModel
from run_config.families.detr import DetrModel
from run_config.families.model import ModelConfig
from run_config.families.rf_detr import RfDetrModel


def twin(family: Family, config: ModelConfig, classes: int) -> PreTrainedModel:
    """The same network in transformers, with the same trainable parameters and weights.

    Except for DETR, the family's network gets the random weights of transformers' model.
    """
    if isinstance(config, DetrModel):
        assert isinstance(family.network, Detr)
        return transformers_detr(family.network, config, classes)
    if isinstance(config, RfDetrModel):
        theirs: PreTrainedModel = rf_detr(config, classes)
        theirs.get_parameter("model.backbone.backbone.embeddings.mask_token").requires_grad_(False)
    elif isinstance(config, DFineModel):
        theirs = d_fine(config, classes)
    else:
        assert isinstance(config, DeformableDetrModel)
        theirs = deformable_detr(config, classes)
        # Without timm, transformers looks for the stages under another name and freezes the whole backbone.
        for name, parameter in theirs.model.backbone.named_parameters():
            parameter.requires_grad_(re.search(r"stages\.[123]\.", name) is not None)
    family.network.load_state_dict(family.own_names(theirs.state_dict()))
    return theirs


def rf_detr(model: RfDetrModel, classes: int) -> RfDetrForObjectDetection:
    """RF-DETR, with the epsilon of the original."""
    last = model.backbone_layers
    backbone = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": model.backbone_dim,
        "num_attention_heads": model.backbone_heads,
        "num_hidden_layers": last,
        "patch_size": model.patch_size,
        "num_windows": model.windows,
        "out_features": [f"stage{last * part // 4}" for part in (1, 2, 3, 4)],
        "image_size": model.position_cells * model.patch_size,
    }
    return RfDetrForObjectDetection(
        RfDetrConfig(
            backbone_config=backbone,
            d_model=model.hidden_dim,
            decoder_layers=model.decoder_layers,
            decoder_ffn_dim=model.feedforward_dim,
            decoder_self_attention_heads=model.heads,
            decoder_cross_attention_heads=model.cross_heads,
            decoder_n_points=model.points,
            num_queries=model.queries,
            group_detr=model.groups,
            dropout=0.0,
            layer_norm_eps=1e-6,
            num_labels=classes,
        )
    )


def deformable_detr(model: DeformableDetrModel, classes: int) -> DeformableDetrForObjectDetection:
    """Deformable DETR."""
    last = ["stage4"] if model.levels == 1 else ["stage2", "stage3", "stage4"]
    return DeformableDetrForObjectDetection(
        DeformableDetrConfig(
            use_timm_backbone=False,
            backbone=None,
            backbone_config={"model_type": "resnet", "out_features": last},
            d_model=model.hidden_dim,
            num_queries=model.queries,
            two_stage_num_proposals=model.queries,
            num_feature_levels=model.levels,
            encoder_layers=model.encoder_layers,
            decoder_layers=model.decoder_layers,
            encoder_ffn_dim=model.feedforward_dim,
            decoder_ffn_dim=model.feedforward_dim,
            encoder_attention_heads=model.heads,
            decoder_attention_heads=model.heads,
            encoder_n_points=model.points,
            decoder_n_points=model.points,
            with_box_refine=model.refine,
            two_stage=model.two_stage,
            num_labels=classes,
        )
    )


def d_fine(model: DFineModel, classes: int) -> DFineForObjectDetection:
    """D-FINE."""
    stem, stages = SIZES[model.backbone]
    used = stages[-model.levels :]
    backbone = HGNetV2Config(
        stem_channels=[3, *stem],
        embedding_size=2 * stem[0],
        depths=[stage.blocks for stage in stages],
        hidden_sizes=[stage.outputs for stage in stages],
        stage_in_channels=[stem[1], *(stage.outputs for stage in stages[:-1])],
        stage_mid_channels=[stage.middle for stage in stages],
        stage_out_channels=[stage.outputs for stage in stages],
        stage_num_blocks=[stage.blocks for stage in stages],
        stage_numb_of_layers=[stage.layers for stage in stages],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        use_learnable_affine_block=model.affine_activations,
        out_features=[f"stage{number}" for number in range(5 - model.levels, 5)],
    )
    return DFineForObjectDetection(
        DFineConfig(
            backbone_config=backbone,
            freeze_backbone_batch_norms=model.freeze_norms,
            encoder_in_channels=[stage.outputs for stage in used],
            feat_strides=[8, 16, 32][-model.levels :],
            encode_proj_layers=[model.levels - 1],
            encoder_hidden_dim=model.encoder_dim,
            encoder_layers=model.encoder_layers,
            encoder_ffn_dim=model.encoder_feedforward_dim,
            encoder_attention_heads=model.heads,
            hidden_expansion=2 * model.fusion_dim / model.encoder_dim,
            depth_mult=model.fusion_blocks / 3,
            d_model=model.hidden_dim,
            num_queries=model.queries,
            decoder_in_channels=[model.encoder_dim] * model.levels,
            decoder_ffn_dim=model.feedforward_dim,
            num_feature_levels=model.levels,
            decoder_n_points=list(model.points),
            decoder_layers=model.decoder_layers,
            decoder_attention_heads=model.heads,
            num_denoising=model.denoising_queries,
            max_num_bins=model.bins,
            reg_scale=model.reach,
            num_labels=classes,
        )
    )
