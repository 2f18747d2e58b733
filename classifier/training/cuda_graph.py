"""CUDA graphs: whole training steps as one launch.

The launches of a small step cost more than its arithmetic; a captured graph is one launch.
"""

import logging

import torch

from classifier.training.sampler import MicroBatch
from classifier.training.state import TrainState

log = logging.getLogger(__name__)

WARMUP_STEPS = 3  # run eagerly before capturing, in every process that captures


class CudaGraphStep:
    """Whole steps of one shape, captured as one CUDA graph.

    Warm-up steps run eagerly, on the stream that captures; so does whatever has another shape,
    such as the last step of an epoch.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.stream = torch.cuda.Stream(state.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.captured: MicroBatch | None = None
        self.warmed_up = 0
        self.failed = False

    def __call__(self, part: MicroBatch) -> None:
        """Do what `TrainState.train_step` does."""
        self.state.set_learning_rate()
        whole = len(part.labels) == part.step_rows  # no piece of a step that spans two chunks
        ready = self.warmed_up >= WARMUP_STEPS and not self.failed
        if self.graph is None and whole and ready:
            try:
                self._capture(part)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.failed = True
                log.warning("Steps run one by one, because capturing them failed: %s", error)
        if (
            self.graph is None
            or self.captured is None
            or not whole
            or part.step_rows != self.captured.step_rows
        ):
            self._run_eagerly(part)
        else:
            _copy(part.images, self.captured.images)
            _copy(part.labels, self.captured.labels)
            self.graph.replay()
            self.state.step += 1

    def _run_eagerly(self, part: MicroBatch) -> None:
        here = torch.cuda.current_stream(self.state.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            self.state.forward_backward(part)
        here.wait_stream(self.stream)
        self.warmed_up += 1

    def _capture(self, part: MicroBatch) -> None:
        """Record one step; recording does not take it."""
        step = self.state.step
        shuffled = self.state.recipe.batch != 0
        images, labels = (part.images, part.labels)
        if shuffled:
            images, labels = images.clone(), labels.clone()
        self.captured = MicroBatch(images, labels, part.step_rows, ends_step=True, share=part.share)
        graph = torch.cuda.CUDAGraph()
        device = self.state.device
        index = torch.cuda.current_device() if device.index is None else device.index
        drawing = [self.state.augmentation, torch.cuda.default_generators[index]]
        graph.register_generator_state(self.state.augmentation)
        torch.cuda.synchronize(device)
        before = [generator.clone_state() for generator in drawing]
        try:
            with (
                torch.cuda.device(device),
                torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                self.state.forward_backward(self.captured)
        except BaseException:  # torch leaves its generators waiting for the end of the capture
            for generator, state in zip(drawing, before, strict=True):
                generator.graphsafe_set_state(state)
            self.state.optimiser.zero_grad()  # which no kernel has filled
            raise
        finally:
            self.state.step = step
        self.graph = graph


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy, unless both are the same memory, as a full batch is."""
    if source.data_ptr() != target.data_ptr():
        target.copy_(source)
