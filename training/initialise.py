"""Fresh weights as in He et al. 2015 ("PReLU-net"), equation 10: normal, variance 2 / fan-in."""

import torch
from torch import nn

from training.randomness import Stream, make_generator


def initialise(network: nn.Module, seed: int) -> None:
    """Set every parameter from `seed`: convolutions normal with variance 2 / fan-in, batch norm 1 and 0.

    The classifier, which no ReLU follows, has variance 1 / fan-in and bias 0.
    """
    generator = make_generator(seed, Stream.WEIGHTS)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
                module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
