"""Training: one loop for every recipe.

A training that was broken off goes on from its checkpoint, on a CPU to the same bytes: the order of
the rows follows from seed and epoch, and the state of torch's generator is part of the checkpoint.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from classifier.checkpoints import Checkpoint
from classifier.errors import BadInput
from classifier.recipe import Recipe


@dataclass(kw_only=True)
class History:
    """What was seen after each epoch; losses and accuracies are means over the epoch's rows."""

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_accuracy: list[float] | None = None

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return len(self.loss)

    @property
    def mean_loss(self) -> float:
        """Mean of all losses so far: the figure that the post prints every ten epochs."""
        return sum(self.loss) / len(self.loss)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Softmax cross-entropy [N]: log-sum-exp of the logits minus the target's logit.

    With smoothing, that share of the target is spread evenly over all classes.
    """
    target = logits.gather(1, labels[:, None]).squeeze(1)
    if smoothing:
        target = (1 - smoothing) * target + smoothing * logits.mean(dim=1)
    return logits.logsumexp(dim=1) - target


def fit(
    network: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[History], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train the network in place, on `device`, where the data then sits as a whole.

    Takes float32 images [N, *shape] in 0..1 and uint8 labels [N]. The validation rows are drawn at
    random, the same ones for every seed. `on_epoch` is called after every epoch with the history so
    far. On one machine, equal recipe, data, seed and number of CPU threads give equal weights, also
    when the training was broken off and goes on from its checkpoint.

    Raises:
        BadInput: the loss is no longer finite.
    """
    x = torch.from_numpy(images).to(device)
    y = torch.from_numpy(labels.astype(np.int64)).to(device)
    rows, held_back = _held_back(len(y), recipe.validation_rows)
    batch = min(recipe.batch or len(rows), len(rows))
    per_epoch = math.ceil(len(rows) / batch)
    steps = recipe.epochs * per_epoch
    network.to(device).train()
    state = _State(network, _optimiser(network, recipe), device, validated=len(held_back) > 0)
    first = state.restore(checkpoint)
    order = _order(rows, batch, seed, first // per_epoch)

    with state.generators(seed):
        for step in range(first, steps):
            epoch, number = divmod(step, per_epoch)
            if number == 0:
                order = _order(rows, batch, seed, epoch)
            chosen = order[number * batch : (number + 1) * batch]
            for images_part, labels_part in _passes(x, y, chosen, recipe.micro_batch or batch):
                logits = network(images_part)
                loss = cross_entropy(logits, labels_part, recipe.label_smoothing).sum()
                (loss / len(chosen)).backward()
                state.see(loss, logits, labels_part)
            state.step(learning_rate(recipe, step, steps))
            if number == per_epoch - 1:
                validation = _accuracy(network, x, y, held_back) if len(held_back) else None
                state.end_epoch(len(rows), validation)
                on_epoch(state.history)
            if checkpoint and checkpoint.due():
                state.save(checkpoint, step + 1)
    return state.history


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of a step: constant, or one cycle (Smith and Topin 2018).

    One cycle rises along a cosine from a 25th of the peak over the first 30 % of the steps, and
    falls along a cosine to almost nothing over the rest.
    """
    peak = recipe.learning_rate
    if recipe.schedule == "constant":
        return peak
    rise = 0.3 * steps - 1
    low, high, share = peak / 25, peak, step / rise if rise > 0 else 2.0
    if share > 1:
        low, high = peak / 25e4, peak
        share = 1 - (step - rise) / (steps - 1 - rise)
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


class _State:
    """All that moves during a training, and so all that a checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        *,
        validated: bool,
    ) -> None:
        self.network, self.optimiser, self.device = network, optimiser, device
        self.history = History(validation_accuracy=[] if validated else None)
        self.random: dict[str, Tensor] = {}  # of a checkpoint, until the generators take them over
        self.sums = {
            "loss": torch.zeros((), device=device),
            "right": torch.zeros((), device=device),
        }

    @contextmanager
    def generators(self, seed: int) -> Iterator[None]:
        """Torch's global generators, for dropout and the like: ours within, untouched after."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            if "cpu" in self.random:
                torch.set_rng_state(self.random["cpu"])
            if "cuda" in self.random and self.device.type == "cuda":
                torch.cuda.set_rng_state(self.random["cuda"], self.device)
            yield

    def see(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a pass to the epoch's sums; nothing is fetched from the device."""
        self.sums["loss"] += loss.detach()
        self.sums["right"] += (logits.detach().argmax(1) == labels).sum()

    def step(self, rate: float) -> None:
        """Turn the gradients into a step."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()

    def end_epoch(self, rows: int, validation: float | None) -> None:
        """Note the epoch's means.

        Raises:
            BadInput: the loss is not finite.
        """
        self.history.loss.append(self.sums["loss"].item() / rows)
        self.history.train_accuracy.append(self.sums["right"].item() / rows)
        if self.history.validation_accuracy is not None and validation is not None:
            self.history.validation_accuracy.append(validation)
        for total in self.sums.values():
            total.zero_()
        if not math.isfinite(self.history.loss[-1]):
            rate = self.optimiser.param_groups[0]["lr"]
            raise BadInput(
                f"The loss is {self.history.loss[-1]} in epoch {self.history.epochs}, at learning "
                f"rate {rate:g}: give a smaller --learning-rate."
            )

    def save(self, checkpoint: Checkpoint, step: int) -> None:
        """Keep everything, `step` being the next one to take."""
        about = {"step": step, "history": asdict(self.history)}
        checkpoint.save(self._tensors(), about)

    def restore(self, checkpoint: Checkpoint | None) -> int:
        """Take everything from the checkpoint, if one fits; the step to go on with."""
        kept = checkpoint.load() if checkpoint else None
        if kept is None:
            return 0
        tensors, about = kept
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimiser":
                index, _, entry = rest.partition(".")
                state.setdefault(int(index), {})[entry] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.network.load_state_dict(_under("network", tensors))
        for name, tensor in _under("sums", tensors).items():
            self.sums[name].copy_(tensor)
        self.random = _under("random", tensors)
        self.history = History(**about["history"])
        return int(about["step"])

    def _tensors(self) -> dict[str, Tensor]:
        moments = self.optimiser.state_dict()["state"].items()
        random = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            **random,
            **{f"network.{name}": value for name, value in self.network.state_dict().items()},
            **{f"sums.{name}": value for name, value in self.sums.items()},
            **{
                f"optimiser.{index}.{name}": value
                for index, entries in moments
                for name, value in entries.items()
                if value is not None
            },
        }


PASS_ROWS = 2_000  # of validation


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }


def _mix(seed: int, number: int) -> int:
    """A seed for one epoch of a training, unrelated to those of its neighbours."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def _held_back(rows: int, wanted: int) -> tuple[Tensor, Tensor]:
    """Row numbers to train on, and to hold back: at most a fifth, the same for every seed."""
    count = min(wanted, rows // 5)
    if not count:
        return torch.arange(rows), torch.arange(0)
    drawn = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    return drawn[count:], drawn[:count]


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), weight_decay=recipe.weight_decay)
    adam = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return adam(
        network.parameters(),
        betas=(recipe.beta_1, recipe.beta_2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _order(rows: Tensor, batch: int, seed: int, epoch: int) -> Tensor:
    """The rows in the order of this epoch; as they lie, where one step takes them all."""
    if batch == len(rows):
        return rows
    return rows[
        torch.randperm(len(rows), generator=torch.Generator().manual_seed(_mix(seed, epoch)))
    ]


def _passes(x: Tensor, y: Tensor, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """These rows of the images and labels, `size` at a time; all rows in order need no copy."""
    if len(rows) == len(y):
        yield from zip(x.split(size), y.split(size), strict=True)
    else:
        for part in rows.to(x.device).split(size):
            yield x.index_select(0, part), y.index_select(0, part)


def _accuracy(network: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        passes = _passes(x, y, rows, PASS_ROWS)
        right = sum((network(images).argmax(1) == labels).sum() for images, labels in passes)
    network.train()
    return float(right) / len(rows)
