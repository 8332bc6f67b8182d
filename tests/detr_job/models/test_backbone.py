"""The backbone gives torchvision's numbers, gradients included, and freezes what the paper freezes."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from detr_job.errors import JobError
from detr_job.models.backbone import Backbone, FrozenBatchNorm, ResNet
from detr_job.models.detr.network import Detr
from detr_job.models.imagenet_weights import load_imagenet_weights
from run_config.families.detr import DetrModel

MODELS = [("resnet18", False), ("resnet34", False), ("resnet50", False), ("resnet101", False), ("resnet50", True)]


def torchvision_twin(name: str, dilation: bool) -> nn.Module:
    """torchvision's network with random norms; the last ones of each block small, to keep numbers tame."""
    twin = torchvision.models.get_model(
        name, weights=None, norm_layer=FrozenBatchNorm2d, replace_stride_with_dilation=[False, False, dilation]
    ).double()
    for module in twin.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.3, 0.7)
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(std=0.1)
            module.running_mean.normal_(std=0.1)
    return twin


def trunk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize(("name", "dilation"), MODELS)
def test_features_and_gradients_are_torchvisions(name: str, dilation: bool):
    torch.manual_seed(0)
    twin = torchvision_twin(name, dilation)
    ours = ResNet(name, dilation=dilation).double()
    ours.load_state_dict(trunk(twin.state_dict()))
    images = torch.randn(2, 3, 50, 70, dtype=torch.float64)

    features = ours(images)
    expected = images
    for child, module in twin.named_children():
        if child not in ("avgpool", "fc"):
            expected = module(expected)
    torch.testing.assert_close(features, expected)
    assert features.shape[1] == ours.channels

    (features**2).mean().backward()
    (expected**2).mean().backward()
    gradients = {key: parameter.grad for key, parameter in twin.named_parameters()}
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], msg=lambda text, key=key: f"{key}: {text}")


def test_only_the_last_three_stages_train():
    backbone = Backbone("resnet18")
    training = {name.split(".")[1] for name, each in backbone.named_parameters() if each.requires_grad}
    frozen = {name.split(".")[1] for name, each in backbone.named_parameters() if not each.requires_grad}
    assert training == {"layer2", "layer3", "layer4"}
    assert frozen == {"conv1", "layer1"}


def test_a_norm_that_is_written_to_is_folded_anew():
    norm = FrozenBatchNorm(3)
    before = norm.scale_and_shift()[1].clone()
    norm.bias.add_(1)
    assert torch.equal(norm.scale_and_shift()[1], before + 1)
    norm.load_state_dict({**norm.state_dict(), "bias": torch.full((3,), 5.0)})
    assert torch.equal(norm.scale_and_shift()[1], before + 5)
    assert norm.double().scale_and_shift()[1].dtype == torch.float64


def test_training_goes_on_after_an_evaluation_in_inference_mode():
    backbone = Backbone("resnet18")
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, 32, 32))
    backbone(torch.rand(1, 3, 32, 32)).sum().backward()
    assert backbone.body.layer4[1].conv2.weight.grad is not None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_come_from_a_file(tmp_path, suffix: str):
    network = torchvision.models.resnet18(weights=None)  # with batch norms that count their batches
    path = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    model = Detr(DetrModel(backbone="resnet18"), 2)
    load_imagenet_weights(model.body, path)
    assert torch.equal(model.body.conv1.weight, network.conv1.weight)
    assert torch.equal(model.body.layer4[1].bn2.weight, network.layer4[1].bn2.weight)


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path):
    path = tmp_path / "resnet34.pth"
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), path)
    model = Detr(DetrModel(backbone="resnet18"), 2)
    before = model.body.conv1.weight.clone()
    with pytest.raises(JobError, match=r"resnet34\.pth: not the weights of this backbone: \d+ tensors"):
        load_imagenet_weights(model.body, path)
    assert torch.equal(model.body.conv1.weight, before)
