"""Generators that load in threads before a round needs them: reading weights waits for disk and host, not for the GPU.

It knows folders and models, no rows. What was begun in vain is closed; what failed is tried again when it is needed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from shammah_generator.stepping import Model

from shammah_trainer.later import Later
from shammah_trainer.rollouts import RolloutSettings, load_for_rollouts


class Ahead:
    """Loads under way by folder."""

    def __init__(self, settings: RolloutSettings) -> None:
        """Nothing is begun yet."""
        self._settings = settings
        self._loads: dict[Path, Later[Model]] = {}

    def begin(self, folder: Path) -> None:
        """Begin to load the generator in `folder`, once."""
        if folder not in self._loads:
            self._loads[folder] = Later(partial(load_for_rollouts, folder, self._settings), name="load")

    def settle(self) -> None:
        """Wait until nothing loads: a model that captures its first graphs bears no other on the device meanwhile."""
        for load in self._loads.values():
            load.settle()

    def load(self, folder: Path) -> Model:
        """Return the model of `folder`, which the caller closes; loaded now where it was not begun, or failed.

        Raises:
            ArtifactError: as `load_for_rollouts`.
        """
        self.settle()
        begun = self._loads.pop(folder, None)
        if begun is not None:
            begun.close()
            if begun.settle():
                return begun.take()
        return load_for_rollouts(folder, self._settings)

    def close(self) -> None:
        """Close what nobody took."""
        for load in self._loads.values():
            if load.settle():
                load.take().close()
            load.close()
        self._loads.clear()
