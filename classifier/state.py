"""The state of a training: all that moves while it goes on, and how a step moves it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from classifier.augmentation import augment
from classifier.checkpoints import Checkpoint
from classifier.errors import BadInput
from classifier.optimisation import cross_entropy, learning_rate, optimiser
from classifier.recipe import Recipe
from classifier.rows import Pass

PASS_ROWS = 2_000  # of validation


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


class State:
    """All that moves during a training, and so all that a checkpoint holds."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, device: torch.device, *, steps: int
    ) -> None:
        self.network, self.recipe, self.device, self.steps = network, recipe, device, steps
        self.optimiser = optimiser(network, recipe, device)
        self.step = 0  # the next one to take
        self.history = History()
        self.random: dict[str, Tensor] = {}  # of a checkpoint, until the generators take them over
        self.sums = {
            "loss": torch.zeros((), device=device),
            "right": torch.zeros((), device=device),
        }
        of_bytes = takes_bytes(network, recipe)
        self.forward: Callable[[Tensor], Tensor] = network
        if of_bytes:
            self.forward = cast("Callable[[Tensor], Tensor]", network.of_bytes)
        self.mixed = recipe.precision == "bf16" and not of_bytes
        self.live = {
            name: value for name, value in network.state_dict().items() if value.is_floating_point()
        }
        self.averages = {n: v.clone() for n, v in self.live.items()} if recipe.averaging else {}

    @contextmanager
    def generators(self, seed: int) -> Iterator[None]:
        """Torch's global generators, for augmentation and dropout: ours within, untouched after."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            if "cpu" in self.random:
                torch.set_rng_state(self.random["cpu"])
            if "cuda" in self.random and self.device.type == "cuda":
                torch.cuda.set_rng_state(self.random["cuda"], self.device)
            yield

    def work(self, part: Pass) -> None:
        """Take the rows through the network and back, and the step, if they end one."""
        self.set_rate()
        self.pass_through(part)

    def pass_through(self, part: Pass) -> None:
        """The same at the rate that is set; nothing is fetched from the device."""
        recipe = self.recipe
        images = part.images
        if augments(recipe):
            images = augment(
                images,
                shift=recipe.shift,
                rotation=recipe.rotation,
                scale=recipe.scale,
                elastic=recipe.elastic,
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            logits = self.forward(images)
        logits = logits.float()
        loss = cross_entropy(logits, part.labels, recipe.label_smoothing).sum()
        (loss / part.of).backward()
        self.sums["loss"] += loss.detach()
        self.sums["right"] += (logits.detach().argmax(1) == part.labels).sum()
        if part.last:
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.step += 1
            if self.averages:
                torch._foreach_lerp_(
                    list(self.averages.values()), list(self.live.values()), 1 - recipe.averaging
                )

    def set_rate(self) -> None:
        """The learning rate of the next step; on CUDA a tensor, which a captured graph reads."""
        rate = learning_rate(self.recipe, self.step, self.steps)
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def check(self, epoch: int) -> None:
        """Look at the loss.

        Raises:
            BadInput: it is not finite.
        """
        loss = self.sums["loss"].item()
        if not math.isfinite(loss):
            rate = float(self.optimiser.param_groups[0]["lr"])
            raise BadInput(
                f"The loss is {loss} in epoch {epoch + 1}, step {self.step}, at learning rate "
                f"{rate:g}: give a smaller --learning-rate."
            )

    def end_epoch(self, rows: int, validation: tuple[Tensor, Tensor] | None) -> None:
        """Note the epoch's means."""
        self.check(self.history.epochs)
        self.history.loss.append(self.sums["loss"].item() / rows)
        self.history.train_accuracy.append(self.sums["right"].item() / rows)
        if validation:
            with self.kept():
                accuracy = _accuracy(self.network, *validation)
            self.history.validation_accuracy = [*(self.history.validation_accuracy or []), accuracy]
        for total in self.sums.values():
            total.zero_()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The weights that would be kept if the training ended now, within the block."""
        before = {name: self.live[name].clone() for name in self.averages}
        self.finish()
        yield
        for name, value in before.items():
            self.live[name].copy_(value)

    def finish(self) -> None:
        """Put the averaged weights, if there are any, into the network."""
        for name, value in self.averages.items():
            self.live[name].copy_(value)

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep everything, but nothing that has lost its loss."""
        self.check(self.history.epochs)
        checkpoint.save(self._tensors(), {"step": self.step, "history": asdict(self.history)})

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Take everything from the checkpoint, if one fits."""
        kept = checkpoint.load() if checkpoint else None
        if kept is None:
            return
        tensors, about = kept
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimiser", tensors).items():
            index, _, entry = name.partition(".")
            owner = self.optimiser.param_groups[0]["params"][int(index)]
            if tensor.shape == owner.shape:  # laid out as the weights are: fused steps go by memory
                tensor = torch.empty_like(owner).copy_(tensor)  # noqa: PLW2901
            state.setdefault(int(index), {})[entry] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.network.load_state_dict(_under("network", tensors))
        for kind, places in (("sums", self.sums), ("averages", self.averages)):
            for name, tensor in _under(kind, tensors).items():
                places[name].copy_(tensor)
        self.random = _under("random", tensors)
        self.history = History(**about["history"])
        self.step = int(about["step"])

    def _tensors(self) -> dict[str, Tensor]:
        moments = self.optimiser.state_dict()["state"].items()
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        kinds = {
            "random": random,
            "network": self.network.state_dict(),
            "sums": self.sums,
            "averages": self.averages,
            "optimiser": {
                f"{index}.{name}": value
                for index, entries in moments
                for name, value in entries.items()
                if value is not None
            },
        }
        return {f"{kind}.{n}": v for kind, tensors in kinds.items() for n, v in tensors.items()}


def augments(recipe: Recipe) -> bool:
    """Whether images are changed before they are seen."""
    return any((recipe.shift, recipe.rotation, recipe.scale, recipe.elastic))


def takes_bytes(network: nn.Module, recipe: Recipe) -> bool:
    """Whether the network is given raw pixels, which bf16 holds exactly."""
    return recipe.precision == "bf16" and hasattr(network, "of_bytes") and not augments(recipe)


def _accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Of the network itself, in float32."""
    if images.dtype == torch.bfloat16:
        images = images.float() / 255
    network.eval()
    with torch.no_grad():
        passes = zip(images.split(PASS_ROWS), labels.split(PASS_ROWS), strict=True)
        right = sum((network(x).argmax(1) == y).sum() for x, y in passes)
    network.train()
    return float(right) / len(labels)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }
