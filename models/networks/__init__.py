"""The networks of "Deep Residual Learning for Image Recognition", found by name.

Each module lists its architectures in ARCHITECTURES; `find_architecture` looks one up. Imports torch.
"""

from models import networks
from models.catalog import find_entries
from models.networks.architecture import Architecture, UnknownArchitecture


def list_architectures() -> list[Architecture]:
    """Every architecture of every module here, in name order."""
    found = find_entries(networks, "ARCHITECTURES", Architecture)
    return sorted(found, key=lambda architecture: architecture.name)


def find_architecture(name: str) -> Architecture:
    """Look up `name`, such as `resnet50` or `resnet20-cifar`; raises UnknownArchitecture."""
    architectures = {architecture.name: architecture for architecture in list_architectures()}
    if name not in architectures:
        raise UnknownArchitecture(name, list(architectures))
    return architectures[name]
