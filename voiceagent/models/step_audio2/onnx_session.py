"""Opens an ONNX file for the CPU with the inputs it must have; what the network computes is its caller's business."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from voiceagent.errors import CheckpointError


class OnnxSession:
    """A network on one CPU thread. Inputs are told apart by position: published files differ in their names.

    Raises:
        CheckpointError: the file is missing or damaged, or takes another number of inputs.
    """

    def __init__(self, path: Path | str, *, inputs: int) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise _damaged(f"{self.path} does not exist.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as cause:  # onnxruntime's exceptions have no common base of their own
            raise _damaged(f"{self.path} is not a network that onnxruntime can load: {cause}") from cause
        self._names = [part.name for part in self._session.get_inputs()]
        if len(self._names) != inputs:
            raise _damaged(f"{self.path} takes {len(self._names)} inputs, not {inputs}.")

    def run(self, *values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The first output for these inputs.

        Raises:
            CheckpointError: the network refuses the shapes that its kind must take.
        """
        try:
            result = self._session.run(None, dict(zip(self._names, values, strict=True)))[0]
        except Exception as cause:  # as above
            raise _damaged(f"{self.path} cannot take {[v.shape for v in values]}: {cause}") from cause
        return np.asarray(result)


def _damaged(message: str) -> CheckpointError:
    return CheckpointError(message, remedy="Download or export the checkpoint folder again.")
