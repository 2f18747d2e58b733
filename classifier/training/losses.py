"""The loss."""

from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return softmax cross-entropy [N]: log-sum-exp of the logits minus the target's logit.

    With smoothing, that share of the target is spread evenly over all classes.
    """
    target = logits.gather(1, labels[:, None]).squeeze(1)
    if smoothing:
        target = (1 - smoothing) * target + smoothing * logits.mean(dim=1)
    return logits.logsumexp(dim=1) - target
