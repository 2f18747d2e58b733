"""Captured steps: on CUDA, whole training steps as one graph.

The launches of a small step cost more than its arithmetic; a graph is one launch.
"""

import torch

from classifier.rows import Pass
from classifier.state import State


class Captured:
    """Whole steps of one shape as one CUDA graph.

    The first steps run eagerly, on a stream of their own, as capturing asks for; so does whatever
    has another shape, like the last step of an epoch.
    """

    EAGER = 3

    def __init__(self, state: State) -> None:
        self.state = state
        self.stream = torch.cuda.Stream(state.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.part: Pass | None = None

    def __call__(self, part: Pass) -> None:
        """As `State.work`."""
        self.state.set_rate()
        whole = len(part.labels) == part.of  # and no piece of a step that spans two blocks
        if self.graph is None and whole and self.state.step >= self.EAGER:
            self._capture(part)
        if self.graph is None or self.part is None or not whole or part.of != self.part.of:
            self._eager(part)
            return
        self.part.images.copy_(part.images)
        self.part.labels.copy_(part.labels)
        self.graph.replay()
        self.state.step += 1

    def _eager(self, part: Pass) -> None:
        here = torch.cuda.current_stream()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            self.state.pass_through(part)
        here.wait_stream(self.stream)

    def _capture(self, part: Pass) -> None:
        """Record one step; recording does not take it."""
        step = self.state.step
        self.part = Pass(part.images.clone(), part.labels.clone(), of=part.of, last=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.state.pass_through(self.part)
        self.state.step = step
