"""Load ImageNet weights into the backbone, from the file of a torchvision classification checkpoint.

Nothing is downloaded. Published DETR started from torchvision's V1 weights (`resnet50-0676ba61.pth`); the V2
weights have the same names but were trained differently.
"""

from pathlib import Path

from detr_job.errors import JobError
from detr_job.models.backbone import ResNet
from detr_job.weights.tensor_files import read_tensors


def load_imagenet_weights(body: ResNet, path: Path) -> None:
    """Load the backbone's weights from `path`, without the classifier (`fc`).

    Raises JobError, without changing any weight, when the file holds another network.
    """
    wanted = body.state_dict()
    found = {
        name: tensor
        for name, tensor in read_tensors(path).items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }
    wrong = sorted(
        name
        for name in wanted.keys() | found.keys()
        if name not in wanted or name not in found or wanted[name].shape != found[name].shape
    )
    if wrong:
        raise JobError(
            f"{path}: not the weights of this backbone: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, among them {wrong[0]}; give torchvision's weights of the same ResNet"
        )
    body.load_state_dict(found)
