"""DETR as published (arXiv 2005.12872), including state-dict keys: public checkpoints load strictly."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.backbone import Backbone, ResNet
from detr_job.models.detr.transformer import Transformer
from detr_job.models.layers import Linear
from detr_job.models.outputs import Outputs
from detr_job.models.position_encoding import LearnedPositionEncoding, SinePositionEncoding
from run_config.families.detr import DetrModel


class BoxHead(nn.Module):
    """Three linear layers from a query to the logits of a box."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((Linear(dim, dim), Linear(dim, dim), Linear(dim, 4)))

    def forward(self, hs: Tensor) -> Tensor:
        """(…, dim) to (…, 4)."""
        first, second, last = self.layers
        logits: Tensor = last(F.relu(second(F.relu(first(hs)))))
        return logits


class Detr(nn.Module):
    """Backbone, transformer, and two heads that all decoder layers share."""

    def __init__(self, config: DetrModel, num_classes: int) -> None:
        super().__init__()
        dim = config.hidden_dim
        encodings = {"sine": SinePositionEncoding, "learned": LearnedPositionEncoding}
        body = Backbone(config.backbone, dilation=config.dilation)
        # the learned encoding is published as `backbone.1`
        self.backbone = nn.ModuleList((body, encodings[config.position_embedding](dim)))
        self.input_proj = nn.Conv2d(body.body.channels, dim, kernel_size=1)
        self.transformer = Transformer(config)
        self.class_embed = Linear(dim, num_classes + 1)
        self.bbox_embed = BoxHead(dim)
        self.query_embed = nn.Embedding(config.queries, dim)

    @property
    def body(self) -> ResNet:
        """The ResNet, whose parameter names begin with `backbone.0.body`."""
        backbone = self.backbone[0]
        assert isinstance(backbone, Backbone)
        return backbone.body

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> Outputs:
        """Predictions of every decoder layer: logits (L, B, Q, num_classes + 1), the last class is "no object".

        images: (B, 3, H, W), normalised. padding_mask: (B, H, W), True on padding, which must lie to the right
        and below and hold zeros. None: nothing is padded.
        """
        body, encoding = self.backbone
        features = self.input_proj(body(images))
        height, width = features.shape[-2:]
        mask = None
        if padding_mask is not None:
            mask = F.interpolate(padding_mask[None].float(), size=(height, width))[0].bool()
        pos = encoding(height, width, mask, features.device).flatten(1, 2)
        # channels last in memory: the tokens are a view of the features
        src = features.permute(0, 2, 3, 1).flatten(1, 2)
        hs = self.transformer(src, pos, self.query_embed.weight, None if mask is None else mask.flatten(1))
        # With eight bits of mantissa, boxes would be wrong by pixels. The heads are cheap, so they run in fp32.
        with torch.autocast(hs.device.type, enabled=False):
            hs = hs.float()
            return Outputs(self.class_embed(hs), self.bbox_embed(hs).sigmoid())
