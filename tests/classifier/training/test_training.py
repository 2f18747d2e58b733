import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from classifier.errors import BudgetSpentError, InputError
from classifier.training import loop, losses, networks, sampler, schedules
from classifier.training.checkpoints import Checkpoint
from classifier.training.recipe import RECIPES, Recipe
from classifier.training.rows import InMemoryRows

CPU = torch.device("cpu")
ROWS, SHAPE, CLASSES = 600, (6, 5), 4
#: What `auto` may become: both are trained here, whatever this processor has.
PRECISIONS = dict.fromkeys(RECIPES, "float32") | {"best": "bf16"}


@pytest.fixture(scope="module")
def data():
    """Four noisy patterns: easy, but not trivial."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, ROWS).astype(np.uint8)
    patterns = random.random((CLASSES, *SHAPE))
    images = np.clip(patterns[labels] + random.normal(0, 0.2, (ROWS, *SHAPE)), 0, 1)
    return images.astype(np.float32), labels


def in_memory(data):
    return InMemoryRows(*map(torch.from_numpy, data))


def fit(network, data, recipe, seed, **options):
    held = InMemoryRows(*loop.to_device(network, recipe, CPU)(*data))
    return loop.fit(network, held, recipe, seed=seed, device=CPU, **options)


def train(data, recipe, seed=0, **options):
    network = networks.build("post", SHAPE, CLASSES, {}, seed)
    history = fit(network, data, recipe, seed, **options)
    return [value.detach().numpy() for value in network.parameters()], history


def numpy_step(weights, images, labels, rate):
    """Loss and new weights of one full-batch step of the post, written out in float64."""
    w1, b1, w2, b2 = (value.astype(np.float64) for value in weights)
    x = images.reshape(len(images), -1).astype(np.float64)
    before = x @ w1 + b1
    hidden = np.maximum(before, 0)
    logits = hidden @ w2 + b2
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log(probabilities[np.arange(len(x)), labels]).mean()
    slope = (probabilities - np.eye(probabilities.shape[1])[labels]) / len(x)
    back = slope @ w2.T * (before > 0)
    gradients = (x.T @ back, back.sum(axis=0), hidden.T @ slope, slope.sum(axis=0))
    return loss, [
        value - rate * gradient for value, gradient in zip((w1, b1, w2, b2), gradients, strict=True)
    ]


@pytest.mark.parametrize("micro_batch", [0, 7, 600], ids=["whole", "in parts", "one part"])
def test_each_epoch_of_post_agrees_with_numpy_in_float64_from_the_same_weights(data, micro_batch):
    recipe = replace(RECIPES["post"], epochs=1, micro_batch=micro_batch)
    network = networks.build("post", SHAPE, CLASSES, {}, 0)
    for _ in range(25):
        weights = [value.detach().numpy().copy() for value in network.parameters()]
        loss, stepped = numpy_step(weights, *data, rate=0.8)
        history = fit(network, data, recipe, 0)
        assert history.loss == [pytest.approx(loss, rel=1e-5)]
        for value, old, new in zip(network.parameters(), weights, stepped, strict=True):
            step = value.detach().numpy() - old
            scale = np.abs(new - old).max()
            np.testing.assert_allclose(step, new - old, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.slow
def test_final_losses_of_post_over_ten_seeds_agree_with_numpy_in_float64_as_distributions(data):
    """From the same weights, for as many epochs as the post; single runs may drift apart."""
    ours, theirs = [], []
    for seed in range(10):
        network = networks.build("post", SHAPE, CLASSES, {}, seed)
        weights = [value.detach().numpy().copy() for value in network.parameters()]
        ours.append(fit(network, data, RECIPES["post"], seed).loss[-1])
        for _ in range(100):
            loss, weights = numpy_step(weights, *data, rate=0.8)
        theirs.append(loss)
    assert np.std(theirs) > 0
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=np.std(theirs) / 10)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.1)


def test_bf16_is_given_the_exact_pixels_and_agrees_with_float32_to_its_precision(data):
    recipe = replace(RECIPES["post"], precision="bf16")
    network = networks.build("post", SHAPE, CLASSES, {}, 0)
    pixels = np.arange(256, dtype=np.float32).repeat(30).reshape(256, *SHAPE) / 255
    stored, _ = loop.to_device(network, recipe, CPU)(pixels, np.zeros(256, np.uint8))
    assert stored.dtype == torch.bfloat16
    assert stored[:, 0, 0].tolist() == list(range(256))
    images = torch.from_numpy(data[0])
    rough = network.forward_uint8(loop.to_device(network, recipe, CPU)(*data)[0])
    torch.testing.assert_close(rough, network(images), rtol=0.02, atol=0.02)
    assert rough.dtype == torch.float32


@pytest.mark.parametrize("name", ["post", "mlp"])
def test_bf16_learns_as_well_as_float32(data, name):
    accuracies = []
    for precision in ("float32", "bf16"):
        recipe = replace(
            RECIPES[name],
            precision=precision,
            epochs=30,
            min_steps=0,
            batch=RECIPES[name].batch and 60,
        )
        network = networks.build("post", SHAPE, CLASSES, {}, 0)
        accuracies.append(fit(network, data, recipe, 0).train_accuracy[-1])
    assert accuracies[0] > 0.9
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)


def test_averaged_weights_are_the_ones_kept_and_validated(data):
    recipe = Recipe(epochs=4, batch=50, averaging=0.9, validation_rows=100)
    network = networks.build("post", SHAPE, CLASSES, {}, 0)
    averages = [value.detach().clone() for value in network.parameters()]
    seen = []

    def follow(_):
        for average, value in zip(averages, network.parameters(), strict=True):
            average.lerp_(value.detach(), 1 - 0.9)
        seen.append([value.detach().clone() for value in network.parameters()])

    batch_an_epoch = replace(recipe, batch=0)
    history = fit(network, data, batch_an_epoch, 0, on_epoch=follow)
    for average, kept, last in zip(averages, network.parameters(), seen[-1], strict=True):
        torch.testing.assert_close(kept.detach(), average)
        assert not torch.equal(kept, last)
    images, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    held_back = ~sampler.train_mask(in_memory(data), 100)
    accuracy = (network(images[held_back]).argmax(1) == labels[held_back]).float().mean()
    assert history.validation_accuracy[-1] == pytest.approx(float(accuracy))


def test_a_state_whose_loss_is_not_finite_is_not_saved(data, tmp_path):
    checkpoint = Checkpoint(path=tmp_path / "checkpoint", key="a", seconds=0)
    recipe = replace(RECIPES["post"], learning_rate=100.0, epochs=50)
    with pytest.raises(InputError, match="The loss is"):
        train((data[0] * 1e30, data[1]), recipe, checkpoint=checkpoint)
    tensors, _ = checkpoint.load()
    assert all(value.isfinite().all() for name, value in tensors.items() if "sums" in name)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_agrees_with_scikit_learn(smoothing):
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 5, (50, 4)), random.integers(0, 4, 50)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (1 - smoothing) * log_loss(
        labels, probabilities, labels=range(4)
    ) - smoothing * np.log(probabilities).mean()
    found = losses.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), smoothing)
    assert found.mean().item() == pytest.approx(expected)


def test_cross_entropy_stays_finite_for_huge_logits():
    found = losses.cross_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))
    assert found.item() == pytest.approx(2e4)


def test_learns(data):
    _, history = train(data, replace(RECIPES["post"], epochs=60))
    assert history.loss[-1] < history.loss[0] / 2
    assert history.train_accuracy[-1] > 0.95


@pytest.mark.parametrize("name", list(RECIPES))
def test_equal_seeds_give_equal_bytes_and_other_seeds_others(data, name):
    recipe = replace(RECIPES[name], epochs=3, min_steps=0, precision=PRECISIONS[name])
    first, again, other = (train(data, recipe, seed)[0] for seed in (3, 3, 4))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert any(a.tobytes() != b.tobytes() for a, b in zip(first, other, strict=True))


def test_the_history_has_one_entry_an_epoch_and_none_for_what_is_not_measured(data):
    seen = []
    _, history = train(
        data, replace(RECIPES["post"], epochs=4), on_epoch=lambda h: seen.append(h.mean_loss)
    )
    assert len(history.loss) == len(history.train_accuracy) == history.epochs == 4
    assert history.validation_accuracy is None
    assert seen == [pytest.approx(np.mean(history.loss[:n])) for n in (1, 2, 3, 4)]


def test_validation_rows_are_never_trained_on(data):
    """Rows whose label is poison: a model that had seen them would have fitted them."""
    images, labels = data
    held_back = ~sampler.train_mask(in_memory(data), 100).numpy()
    assert held_back.sum() == 100
    poisoned = labels.copy()
    poisoned[held_back] = (labels[held_back] + 1) % CLASSES
    recipe = Recipe(epochs=3, validation_rows=100, batch=50)
    clean, history = train(data, recipe)
    same, poor = train((images, poisoned), recipe)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(clean, same, strict=True))
    assert poor.validation_accuracy != history.validation_accuracy


def test_holds_back_at_most_a_fifth():
    few = InMemoryRows(torch.rand(10, 2, 2), torch.zeros(10))
    assert sampler.train_mask(few, 5_000).sum() == 8


def test_rows_are_held_back_by_their_pixels_wherever_they_lie(data):
    """A row that comes or goes changes at most one other's place; the order changes none."""
    images, labels = data
    held_back = ~sampler.train_mask(in_memory(data), 100).numpy()
    order = np.random.default_rng(1).permutation(ROWS)
    shuffled = ~sampler.train_mask(in_memory((images[order], labels[order])), 100).numpy()
    assert (shuffled == held_back[order]).all()
    fewer = ~sampler.train_mask(in_memory((images[1:], labels[1:])), 100).numpy()
    assert (fewer != held_back[1:]).sum() <= 1


@given(
    rows=st.integers(1, 100_000),
    batch=st.integers(0, 1_000),
    held_back=st.integers(0, 10_000),
    min_steps=st.integers(0, 10_000),
    epochs=st.integers(1, 50),
)
def test_epochs_are_the_fewest_with_the_least_number_of_steps(
    rows, batch, held_back, min_steps, epochs
):
    recipe = Recipe(epochs=epochs, batch=batch, validation_rows=held_back, min_steps=min_steps)
    trained_on = rows - min(held_back, rows // 5)
    steps_per_epoch = len(range(0, trained_on, batch)) if batch else 1
    planned = loop.planned_epochs(recipe, rows)
    assert planned >= epochs
    assert planned * steps_per_epoch >= min_steps
    assert planned == epochs or (planned - 1) * steps_per_epoch < min_steps


def test_small_data_trains_for_more_epochs(data):
    recipe = Recipe(epochs=2, batch=100, validation_rows=100, min_steps=21)
    epochs = []
    _, history = train(data, recipe, on_epoch=lambda seen: epochs.append(seen.epochs))
    assert epochs == [1, 2, 3, 4, 5]  # of 5 steps each
    assert history.epochs == 5


@pytest.mark.parametrize("names", [("post", "mlp"), ("mlp", "mlp"), ("best", "best")], ids="-".join)
def test_two_trainings_in_one_process_end_in_the_bytes_of_each_alone(data, names):
    """Both draw all along: `mlp` the order of its rows, `best` its augmentation too."""
    recipes = [
        replace(RECIPES[name], epochs=4, min_steps=0, batch=RECIPES[name].batch and 50)
        for name in names
    ]
    jobs = [(replace(recipe, precision="float32"), seed) for seed, recipe in enumerate(recipes)]
    alone = [train(data, *job)[0] for job in jobs]
    together = threading.Barrier(2)

    def beside(recipe, seed):
        together.wait(60)
        return train(data, recipe, seed, on_epoch=lambda _: together.wait(60))[0]

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda job: beside(*job), jobs))
    for weights, expected in zip(results, alone, strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, expected, strict=True))


def test_a_loss_that_is_not_finite_stops_with_epoch_and_learning_rate(data):
    with pytest.raises(InputError, match=r"in epoch \d+, step \d+, at learning rate 100: give"):
        train((data[0] * 1e30, data[1]), replace(RECIPES["post"], learning_rate=100.0))


class Broken(Exception):
    pass


def broken_off(data, recipe, checkpoint, after):
    def on_epoch(history):
        if history.epochs == after:
            raise Broken

    with pytest.raises(Broken):
        train(data, recipe, checkpoint=checkpoint, on_epoch=on_epoch)


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["within an epoch", "never saved"])
def test_resumes_from_its_checkpoint_to_the_same_bytes(data, name, seconds, tmp_path):
    batch = min(64, RECIPES[name].batch)
    recipe = replace(RECIPES[name], epochs=6, min_steps=0, batch=batch, precision=PRECISIONS[name])
    expected, whole = train(data, recipe)
    place = {"path": tmp_path / "checkpoint", "key": "a"}
    broken_off(data, recipe, Checkpoint(**place, seconds=seconds), after=4)
    epochs = []
    resumed, history = train(
        data,
        recipe,
        checkpoint=Checkpoint(**place),
        on_epoch=lambda seen: epochs.append(seen.epochs),
    )
    # Broken off as epoch 4 ended, before the step was kept: its last step is taken again.
    assert epochs == ([4, 5, 6] if seconds == 0 else [1, 2, 3, 4, 5, 6])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(resumed, expected, strict=True))
    assert history == whole


@pytest.mark.parametrize("harm", ["other key", "truncated", "emptied", "not a checkpoint"])
def test_a_checkpoint_that_does_not_fit_is_ignored_with_a_warning(data, harm, tmp_path, caplog):
    recipe = replace(RECIPES["post"], epochs=3)
    expected, _ = train(data, recipe)
    path = tmp_path / "checkpoint"
    broken_off(data, recipe, Checkpoint(path=path, key="a", seconds=0), after=2)
    content = path.read_bytes()
    harmed = {"truncated": content[:-100], "emptied": b"", "not a checkpoint": b"\x80\x04." * 99}
    path.write_bytes(harmed.get(harm, content))
    checkpoint = Checkpoint(path=path, key="b" if harm == "other key" else "a")
    weights, _ = train(data, recipe, checkpoint=checkpoint)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, expected, strict=True))


def test_one_cycle_is_that_of_torch():
    recipe = Recipe(schedule="one-cycle", learning_rate=0.01)
    steps = 50
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, steps, cycle_momentum=False)
    for step in range(steps):
        assert schedules.learning_rate(recipe, step, steps) == pytest.approx(
            theirs.get_last_lr()[0], rel=1e-6
        )
        optimiser.step()
        theirs.step()


def test_a_checkpoint_of_another_kind_of_device_is_resumed_with_fresh_draws(data, tmp_path, caplog):
    recipe = replace(RECIPES["mlp"], epochs=2, min_steps=0, batch=200)
    checkpoint = Checkpoint(path=tmp_path / "checkpoint", key="a", seconds=0)
    train(data, recipe, checkpoint=checkpoint)
    tensors, about = checkpoint.load()
    tensors["random.augmentation"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU has it
    checkpoint.save(tensors, about | {"device": "cuda"})
    _, history = train(data, replace(recipe, epochs=3), checkpoint=checkpoint)
    assert history.epochs == 3
    assert "The checkpoint was written on cuda" in caplog.text


@pytest.mark.parametrize("recipe", ["post", "mlp"])
def test_a_training_that_its_limit_stops_goes_on_to_the_same_bytes(data, tmp_path, recipe):
    quick = replace(RECIPES[recipe], epochs=4, min_steps=0)
    whole, _ = train(data, quick)
    checkpoint = Checkpoint(path=tmp_path / "checkpoint", key="a")
    with pytest.raises(BudgetSpentError, match=r"after \d\.\d of 4 epochs"):
        train(data, quick, checkpoint=checkpoint, max_seconds=0.0, progress_interval=0.0)
    assert 0 < checkpoint.load()[1]["step"] < planned_steps(quick)
    resumed, history = train(data, quick, checkpoint=checkpoint)
    assert history.epochs == 4
    for mine, theirs in zip(resumed, whole, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def planned_steps(recipe):
    return loop.planned_epochs(recipe, ROWS) * -(-ROWS // (recipe.batch or ROWS))


def test_a_training_at_its_end_is_not_stopped(data):
    _, history = train(data, replace(RECIPES["post"], epochs=1), max_seconds=0.0)
    assert history.epochs == 1


def test_a_weight_that_is_not_finite_after_the_last_step_stops_the_training(data):
    """No loss sees it: a loss is that of before a step."""
    network = networks.build("post", SHAPE, CLASSES, {}, 0)

    def overflow(_):
        network.weight_1.data[0, 0] = float("inf")

    with pytest.raises(InputError, match="A weight is not finite after step 1"):
        fit(network, data, replace(RECIPES["post"], epochs=1), 0, on_epoch=overflow)


def test_a_single_step_is_taken_at_the_full_rate():
    assert schedules.learning_rate(RECIPES["cnn"], 0, 1) == RECIPES["cnn"].learning_rate


def test_a_network_that_draws_by_itself_gives_the_same_beside_another_training(data):
    """Dropout draws from torch's global generator."""

    def own(shape, classes):
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(SHAPE[0] * SHAPE[1], classes)
        )

    recipe = replace(RECIPES["mlp"], network="own", epochs=40, min_steps=0, batch=50)

    def weights(_):
        network = networks.build("own", SHAPE, CLASSES, {"own": own}, 0)
        fit(network, data, recipe, 0)
        return [value.detach().numpy().tobytes() for value in network.parameters()]

    before = torch.get_rng_state()
    alone = weights(0)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(weights, range(2))) == [alone, alone]
    assert torch.equal(torch.get_rng_state(), before)
