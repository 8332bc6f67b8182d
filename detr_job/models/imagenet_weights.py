"""Starting the backbone from ImageNet: a torchvision classification checkpoint, from a file.

Nothing is downloaded. Published DETR started from torchvision's V1 weights (`resnet50-0676ba61.pth`);
the V2 weights have the same names and were trained otherwise.
"""

from pathlib import Path

from detr_job.errors import JobError
from detr_job.models.backbone import ResNet
from detr_job.weights.tensor_files import read_tensors


def load_imagenet_weights(body: ResNet, path: Path) -> None:
    """Fill the trunk from `path`; the classifier (`fc`) in it is left out.

    Raises JobError when the file holds another network: nothing is filled in part.
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
