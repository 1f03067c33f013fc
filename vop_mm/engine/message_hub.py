"""Message hub that keeps values of training steps on the device until they are read."""
import torch
from mmengine.logging import HistoryBuffer, MessageHub

# maximum number of pending values
_MOST = 1000


class DeferredMessageHub(MessageHub):
    """MMEngine's message hub, except that tensors are fetched from the device only when a history is read.

    MMEngine's hub fetches the loss at every step: the host waits until the step is done, and then the device waits for
    the host to start the next one. Here, values stay pending until a log line, a checkpoint or a hook reads a history
    (``log_scalars``, ``get_scalar``, ``state_dict``), and are fetched in one transfer. Histories are identical to the
    bit.

    Args:
        name (str): Name of the experiment.
        **kwargs: Arguments of :class:`mmengine.logging.MessageHub`.
    """

    def __init__(self, name: str, **kwargs) -> None:
        super().__init__(name, **kwargs)
        self._waiting: list[tuple[str, torch.Tensor, int, bool]] = []

    def waits_for(self, key: str) -> bool:
        """Return whether values of a history are still on the device."""
        return any(name == key for name, *_ in self._waiting)

    def update_scalar(self, key: str, value, count: int = 1, resumed: bool = True) -> None:
        """Add a value to a history; see :meth:`mmengine.logging.MessageHub.update_scalar`."""
        if not isinstance(value, torch.Tensor):
            if self.waits_for(key):
                self.fetch()
            super().update_scalar(key, value, count, resumed)
            return
        self._set_resumed_keys(key, resumed)
        # a copy: the caller may overwrite the value in the next step
        self._waiting.append((key, value.detach().reshape(()).clone(), count, resumed))
        if len(self._waiting) >= _MOST:
            self.fetch()

    def _set_resumed_keys(self, key: str, resumed: bool) -> None:
        # the run's own setting takes precedence over that of a checkpoint
        self._resumed_keys[key] = resumed

    def fetch(self) -> None:
        """Move pending values to the histories, with one synchronization for each dtype."""
        waiting, self._waiting = self._waiting, []
        alike: dict[tuple, list[torch.Tensor]] = {}
        for _, value, _, _ in waiting:
            alike.setdefault((value.device, value.dtype), []).append(value)
        fetched = {kind: iter(torch.stack(values).tolist()) for kind, values in alike.items()}
        for key, value, count, resumed in waiting:
            super().update_scalar(key, next(fetched[value.device, value.dtype]), count, resumed)

    @property
    def log_scalars(self) -> dict[str, HistoryBuffer]:
        """All histories."""
        self.fetch()
        return self._log_scalars

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return one history; the others stay pending, since MMEngine's timer reads its own after every step."""
        if self.waits_for(key):
            self.fetch()
        return self._log_scalars[key] if key in self._log_scalars else super().get_scalar(key)

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        self.fetch()
        return super().state_dict()


# shared registry of instances: MessageHub returns this hub as the current one
DeferredMessageHub._instance_dict = MessageHub._instance_dict
