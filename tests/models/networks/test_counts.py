"""Parameters and multiply-adds against the paper's figures (table 1, table 6, section 4.2)."""

import pytest

from models.networks import find_architecture
from models.networks.counting import count_architecture

# Table 1, multiply-adds in 1e9. The paper's 50, 101 and 152 put the stride on the first 1x1.
TABLE_1 = {"resnet18": 1.8, "resnet34": 3.6, "resnet50-v1": 3.8, "resnet101-v1": 7.6, "resnet152-v1": 11.3}
# Table 6, parameters in millions.
TABLE_6 = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
# torchvision's published parameter counts (https://pytorch.org/vision/stable/models.html).
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


@pytest.mark.parametrize(("name", "billions"), TABLE_1.items(), ids=TABLE_1)
def test_multiply_adds_are_table_1_within_3_percent(name: str, billions: float) -> None:
    assert count_architecture(find_architecture(name)).multiply_adds == pytest.approx(
        billions * 1e9, rel=0.03
    )


def test_resnet50_with_the_stride_on_the_3x3_has_4_09_billion() -> None:
    assert round(count_architecture(find_architecture("resnet50")).multiply_adds / 1e9, 2) == 4.09


@pytest.mark.parametrize(("depth", "millions"), TABLE_6.items())
@pytest.mark.parametrize("kind", ["resnet", "plain"])
def test_cifar_parameters_are_table_6_to_its_last_digit(kind: str, depth: int, millions: float) -> None:
    digits = len(str(millions).split(".")[1])
    counted = count_architecture(find_architecture(f"{kind}{depth}-cifar")).parameters / 1e6
    assert round(counted, digits) == millions


@pytest.mark.parametrize(("name", "parameters"), TORCHVISION.items(), ids=TORCHVISION)
def test_parameters_are_torchvisions(name: str, parameters: int) -> None:
    assert count_architecture(find_architecture(name)).parameters == parameters


def test_option_a_has_the_parameters_of_the_plain_network() -> None:
    option_a, plain = find_architecture("resnet34-a"), find_architecture("plain34")
    assert count_architecture(option_a).parameters == count_architecture(plain).parameters


def test_options_b_and_c_add_their_projections_alone() -> None:
    counts = [count_architecture(find_architecture(f"resnet34-{option}")).parameters for option in "abc"]
    # B: 1x1 from 64 to 128, 128 to 256, 256 to 512, and a scale and shift per output channel.
    growing = sum(n * 2 * n + 2 * 2 * n for n in (64, 128, 256))
    # C: also the other 3 + 3 + 5 + 2 blocks, from n to n channels.
    staying = sum(blocks * (n * n + 2 * n) for n, blocks in ((64, 3), (128, 3), (256, 5), (512, 2)))
    assert counts[1] - counts[0] == growing
    assert counts[2] - counts[1] == staying


def test_classes_change_the_classifier_alone() -> None:
    architecture = find_architecture("resnet18")
    assert count_architecture(architecture).parameters - count_architecture(architecture, 10).parameters == (
        990 * 513
    )
