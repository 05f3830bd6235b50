"""Fold batch norms into the convolutions before them: the same function with half the layers."""

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.networks.architecture import Network


class _FeatureTracer(fx.Tracer):
    traced_func_name = "features"


def fold_norms(network: Network) -> Network:
    """A copy of `network` in eval mode whose batch norms are identities, their effect in the convolutions.

    Outputs differ by float32 rounding alone. Only a norm that follows a convolution directly is folded.
    """
    folded = copy.deepcopy(network).eval()
    for node in _FeatureTracer().trace(folded).nodes:
        if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
            continue
        source, norm = node.args[0], folded.get_submodule(str(node.target))
        if source.op != "call_module" or not isinstance(norm, nn.BatchNorm2d):
            continue
        convolution = folded.get_submodule(str(source.target))
        if isinstance(convolution, nn.Conv2d) and len(source.users) == 1:
            folded.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm))
            folded.set_submodule(str(node.target), nn.Identity())
    return folded
