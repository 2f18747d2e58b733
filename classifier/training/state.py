"""The state of a training: all that changes, and how a step changes it."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from classifier.errors import InputError
from classifier.training import generators, networks
from classifier.training.augmentation import augment
from classifier.training.checkpoints import Checkpoint
from classifier.training.group import ALONE, Group, LostRankError, add_gradients
from classifier.training.losses import cross_entropy
from classifier.training.optimisers import build_optimiser
from classifier.training.recipe import Recipe
from classifier.training.sampler import MicroBatch
from classifier.training.schedules import learning_rate

log = logging.getLogger(__name__)

EVALUATION_ROWS = 2_000  # that go through the network together


@dataclass(kw_only=True)
class History:
    """Loss and accuracies of each epoch: means over its rows."""

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_accuracy: list[float] | None = None

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.loss)

    @property
    def mean_loss(self) -> float:
        """Mean of all losses so far, which the post prints every ten epochs."""
        return sum(self.loss) / len(self.loss)


class TrainState:
    """All that changes during a training, and so all that a checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        steps: int,
        seed: int,
        group: Group = ALONE,
    ) -> None:
        self.network, self.recipe, self.device, self.steps = network, recipe, device, steps
        self.seed, self.group = seed, group
        self.optimiser = build_optimiser(network, recipe, device)
        self.step = 0  # the next one to take
        self.history = History()
        self.augmentation = torch.Generator(device).manual_seed(seed)
        self.draws_globally = type(network) not in networks.BUILDERS.values()
        self.global_states: dict[str, Tensor] = {}  # of a checkpoint, until `global_generators`
        self.sums = {
            "loss": torch.zeros((), device=device),
            "correct": torch.zeros((), device=device),
        }
        #: Of the step so far; of a group, what this process counted.
        self.step_sums = self.sums
        if group.size > 1:
            self.step_sums = {name: total.clone() for name, total in self.sums.items()}
        self.trained = [each for each in network.parameters() if each.requires_grad]
        uint8 = takes_uint8(network, recipe)
        self.forward: Callable[[Tensor], Tensor] = network
        if uint8:
            self.forward = cast("Callable[[Tensor], Tensor]", network.forward_uint8)
        self.autocasts = recipe.precision == "bf16" and not uint8
        self.live_weights = {
            name: value for name, value in network.state_dict().items() if value.is_floating_point()
        }
        self.averaged_weights: dict[str, Tensor] = {}
        if recipe.averaging:
            self.averaged_weights = {n: v.clone() for n, v in self.live_weights.items()}

    @contextmanager
    def global_generators(self) -> Iterator[None]:
        """Seed torch's global generators for the block, and restore them afterwards.

        Layers such as dropout draw from them, so one training of a dataset's own network runs at a
        time in a process. The common networks draw nothing.
        """
        if not self.draws_globally:
            yield
            return
        with (
            networks.GLOBAL_GENERATORS,
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
        ):
            before = generators.global_states(self.device)
            torch.manual_seed(self.seed)
            generators.set_states(self.global_states, self.device)
            if self.group.rank:  # other rows, so other draws
                numbers = [self.seed, self.step, self.group.rank]
                torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
            try:
                yield
            finally:
                generators.set_states(before, self.device)

    def train_step(self, part: MicroBatch) -> None:
        """Take the rows through the network and back, and the optimiser's step if they end one."""
        self.set_learning_rate()
        self.forward_backward(part)

    def forward_backward(self, part: MicroBatch) -> None:
        """Do the same at the learning rate that is set; nothing is fetched from the device."""
        recipe = self.recipe
        images = part.images
        if augments(recipe):
            images = augment(
                images,
                self.augmentation,
                share=part.share,
                shift=recipe.shift,
                rotation=recipe.rotation,
                scale=recipe.scale,
                elastic=recipe.elastic,
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocasts):
            logits = self.forward(images)
        logits = logits.float()
        loss = cross_entropy(logits, part.labels, recipe.label_smoothing).sum()
        correct = (logits.detach().argmax(1) == part.labels).sum()
        if part.share.copies > 1:
            loss, correct = loss / part.share.copies, correct / part.share.copies
        (loss / part.step_rows).backward()
        self.step_sums["loss"] += loss.detach()
        self.step_sums["correct"] += correct
        if part.ends_step:
            if self.group.size > 1:
                self._add_up()
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.step += 1
            if self.averaged_weights:
                torch._foreach_lerp_(
                    list(self.averaged_weights.values()),
                    list(self.live_weights.values()),
                    1 - recipe.averaging,
                )

    def _add_up(self) -> None:
        """Add up gradients and counts of the step over the group."""
        add_gradients(self.group, self.trained, list(self.step_sums.values()))
        for name, counted in self.step_sums.items():
            self.sums[name] += counted
            counted.zero_()

    def set_learning_rate(self) -> None:
        """Set the learning rate of the next step; a captured graph reads it from a tensor."""
        rate = learning_rate(self.recipe, self.step, self.steps)
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def check_loss(self, epoch: int) -> None:
        """Look at the loss of the epoch so far.

        Raises:
            InputError: it is not finite.
        """
        loss = self.sums["loss"].item()
        if not math.isfinite(loss):
            rate = float(self.optimiser.param_groups[0]["lr"])
            raise InputError(
                f"The loss is {loss} in epoch {epoch + 1}, step {self.step}, at learning rate "
                f"{rate:g}: give a smaller --learning-rate."
            )

    def end_epoch(self, rows: int, validation: tuple[Tensor, Tensor] | None) -> None:
        """Add the epoch's means to the history."""
        self.check_loss(self.history.epochs)
        self.history.loss.append(self.sums["loss"].item() / rows)
        self.history.train_accuracy.append(self.sums["correct"].item() / rows)
        if validation:
            with self.final_weights():
                accuracy = _accuracy(self.network, *validation, self.group)
            self.history.validation_accuracy = [*(self.history.validation_accuracy or []), accuracy]
        for total in self.sums.values():
            total.zero_()

    @contextmanager
    def final_weights(self) -> Iterator[None]:
        """Put the weights that a training ending now would keep into the network, for the block."""
        before = {name: self.live_weights[name].clone() for name in self.averaged_weights}
        self.finish()
        yield
        for name, value in before.items():
            self.live_weights[name].copy_(value)

    def finish(self) -> None:
        """Put the averaged weights, if there are any, into the network."""
        for name, value in self.averaged_weights.items():
            self.live_weights[name].copy_(value)

    def check_weights(self) -> None:
        """Look at the weights, which no loss has seen after the last step.

        Raises:
            InputError: one is not finite.
        """
        if not all(bool(value.isfinite().all()) for value in self.live_weights.values()):
            raise InputError(
                f"A weight is not finite after step {self.step}: give a smaller --learning-rate."
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, unless the loss is no longer finite."""
        self.check_loss(self.history.epochs)
        checkpoint.save(self._tensors(), self._about())

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Take everything from the checkpoint, if there is one of this training.

        Raises:
            LostRankError: another process of the group read another checkpoint.
        """
        self._restore(checkpoint)
        steps = torch.full((1,), self.step, device=self.device)
        if self.group.size > 1 and len(self.group.gather(steps).unique()) > 1:
            raise LostRankError("The processes do not start at the same step.")

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        saved = checkpoint.load() if checkpoint else None
        if saved is None:
            return
        tensors, about = saved
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
        for kind, places in (("sums", self.sums), ("averages", self.averaged_weights)):
            for name, tensor in _under(kind, tensors).items():
                places[name].copy_(tensor)
        random = _under("random", tensors)
        if about["device"] == self.device.type:
            self.augmentation.set_state(random.pop("augmentation"))
            self.global_states = random
        else:  # a generator's state fits its own kind of device alone
            log.warning(
                "The checkpoint was written on %s: random draws start afresh on %s",
                about["device"],
                self.device.type,
            )
            self.augmentation.manual_seed(self.seed + self.step + 1)
        self.history = History(**about["history"])
        self.step = int(about["step"])

    def _about(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "history": asdict(self.history),
            "device": self.device.type,
        }

    def _tensors(self) -> dict[str, Tensor]:
        moments = self.optimiser.state_dict()["state"].items()
        random = {"augmentation": self.augmentation.get_state()}
        if self.draws_globally:
            random |= generators.global_states(self.device)
        kinds = {
            "random": random,
            "network": self.network.state_dict(),
            "sums": self.sums,
            "averages": self.averaged_weights,
            "optimiser": {
                f"{index}.{name}": value
                for index, entries in moments
                for name, value in entries.items()
                if value is not None
            },
        }
        return {f"{kind}.{n}": v for kind, tensors in kinds.items() for n, v in tensors.items()}


def augments(recipe: Recipe) -> bool:
    """Return whether images are changed before the network sees them."""
    return any((recipe.shift, recipe.rotation, recipe.scale, recipe.elastic))


def takes_uint8(network: nn.Module, recipe: Recipe) -> bool:
    """Return whether the network gets pixels in 0..255, which bf16 holds exactly."""
    return recipe.precision == "bf16" and hasattr(network, "forward_uint8") and not augments(recipe)


def _accuracy(network: nn.Module, images: Tensor, labels: Tensor, group: Group) -> float:
    """Return the accuracy of the network itself, in float32; each process looks at its share."""
    rows, share = len(labels), group.share(len(labels))
    images, labels = images[share.start : share.stop], labels[share.start : share.stop]
    if images.dtype == torch.bfloat16:
        images = images.float() / 255
    network.eval()
    with torch.no_grad():
        parts = zip(images.split(EVALUATION_ROWS), labels.split(EVALUATION_ROWS), strict=True)
        correct = torch.stack([(network(x).argmax(1) == y).sum() for x, y in parts]).sum()
    network.train()
    group.add_up([correct])
    return float(correct) / share.copies / rows


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }
