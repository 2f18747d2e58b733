"""Batch normalisation over the mini-batch of a group: as over the same rows in one process.

torch's own SyncBatchNorm is for GPUs alone. Where every process takes all rows, because there are
fewer rows than processes, the running variance counts each row as often.
"""

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classifier.training.group import Group


def synchronise(network: nn.Module, group: Group) -> None:
    """Let each batch normalisation of the network, in training, see the rows of all processes."""
    for module in network.modules() if group.size > 1 else ():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            module.forward = partial(_forward, module, group)  # type: ignore[method-assign]


def _forward(module: _BatchNorm, group: Group, x: Tensor) -> Tensor:
    if not module.training:
        return type(module).forward(module, x)
    mean, variance, rows = _statistics(x.detach(), group)
    if module.track_running_stats:
        _track(module, mean, variance * rows / (rows - 1).clamp(min=1))
    apply: Any = _Normalise.apply
    given = (module.weight, module.bias, mean, variance, rows, module.eps, group)
    return cast("Tensor", apply(x, *given))


def _statistics(x: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [C], biased variance [C] and number of values a channel, over the group."""
    channels = x.shape[1]
    variance, mean = torch.var_mean(_wide(x), _but_channels(x), correction=0)
    rows = mean.new_full((1,), x.numel() // channels)
    each = group.gather(torch.cat([mean, variance, rows]))
    means, variances, counts = each.split([channels, channels, 1], dim=1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, total


@torch.no_grad()
def _track(module: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics; `variance` is unbiased."""
    assert module.running_mean is not None  # noqa: S101 - for the type checker
    assert module.running_var is not None  # noqa: S101
    assert module.num_batches_tracked is not None  # noqa: S101
    module.num_batches_tracked.add_(1)
    share = module.momentum
    if share is None:  # a mean over all mini-batches
        share = 1 / float(module.num_batches_tracked)
    module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
    module.running_var.lerp_(variance.to(module.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """Normalise with the group's statistics; its gradient takes sums over the group."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        rows: Tensor,
        eps: float,
        group: Group,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), rows)
        ctx.group = group
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, rows = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide, axes = _wide(slope), _but_channels(x)
        normalised = (_wide(x) - mean.view(shape)) * scale.view(shape)
        of_weight, of_bias = (wide * normalised).sum(axes), wide.sum(axes)
        totals = torch.stack([of_weight, of_bias])
        ctx.group.add_up([totals])
        along, level = (totals / rows).view(2, *shape[:1], -1, *shape[2:])
        factor = scale if weight is None else scale * weight
        of_x = (wide - level - normalised * along) * factor.view(shape)
        own = (None, None) if weight is None else (of_weight, of_bias)
        return (of_x.to(x.dtype), *own, None, None, None, None, None)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]
