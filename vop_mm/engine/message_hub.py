"""Values of training steps stay on the device until somebody wants to know them."""
import torch
from mmengine.logging import HistoryBuffer, MessageHub

# so many values wait at most, whatever reads them
_MOST = 1000


class DeferredMessageHub(MessageHub):
    """MMEngine's, except that a tensor which is handed to it is fetched from the device when a history is read.

    MMEngine's own fetches the loss at every step. The host then waits until the step is done, and the device waits for
    the host to start the next one. Here values wait until a log line, a checkpoint or a hook asks for a history
    (``log_scalars``, ``get_scalar``, ``state_dict``), and come with one transfer. Histories are the same to the bit.

    Args:
        name (str): Of the experiment.
        **kwargs: As in :class:`mmengine.logging.MessageHub`.
    """

    def __init__(self, name: str, **kwargs) -> None:
        super().__init__(name, **kwargs)
        self._waiting: list[tuple[str, torch.Tensor, int, bool]] = []

    def waits_for(self, key: str) -> bool:
        """Whether values of a history are still on the device."""
        return any(name == key for name, *_ in self._waiting)

    def update_scalar(self, key: str, value, count: int = 1, resumed: bool = True) -> None:
        """Add a value to a history; see :meth:`mmengine.logging.MessageHub.update_scalar`."""
        if not isinstance(value, torch.Tensor):
            if self.waits_for(key):
                self.fetch()
            super().update_scalar(key, value, count, resumed)
            return
        self._set_resumed_keys(key, resumed)
        # a copy: whoever made the value may write the next step's in its place
        self._waiting.append((key, value.detach().reshape(()).clone(), count, resumed))
        if len(self._waiting) >= _MOST:
            self.fetch()

    def _set_resumed_keys(self, key: str, resumed: bool) -> None:
        # what the run says, whatever a checkpoint noted
        self._resumed_keys[key] = resumed

    def fetch(self) -> None:
        """Put what waits into the histories. One wait for the device (one for each type of values)."""
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
        """One history. The others go on waiting: MMEngine's timer asks for its own after every step."""
        if self.waits_for(key):
            self.fetch()
        return self._log_scalars[key] if key in self._log_scalars else super().get_scalar(key)

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        self.fetch()
        return super().state_dict()


# one register of instances: whoever asks MessageHub for the current one gets this one
DeferredMessageHub._instance_dict = MessageHub._instance_dict
