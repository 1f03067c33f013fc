"""Where a computation waits for the device: reads of its values, counted on any machine."""
import traceback
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

# what can't go on before the device has come to an end: a value is asked for, or the size of a result depends on one
_READS = {'_local_scalar_dense', 'equal', 'allclose', 'nonzero', 'masked_select', '_unique2', 'unique_dim',
          'unique_consecutive', 'bincount', 'repeat_interleave'}
_READS_A_MASK = {'index', 'index_put', 'index_put_'}
# what copies to the host without an operation that could be seen where host and device are the same
_COPIES = {'tolist', 'numpy', 'cpu', '__array__'}


class DeviceReads:
    """Counts, in a ``with`` block, how often the host waits for a value of the device.

    Each such wait lets the device run out of work: kernels are started only when the value has come back. Where there
    is no GPU, one is made believe: the model's tensors count as being on it, with what its data preprocessor puts out
    and everything that is computed from either.

    Args:
        model (nn.Module): What is computed with. Others are found through :meth:`put`.

    Attributes:
        where (Counter): Operation and line that started it, and how often.

    Examples:
        >>> with DeviceReads(model) as reads:
        ...     model.train_step(batch, optim_wrapper)
        >>> reads.count, reads.where
        (1, Counter({'_local_scalar_dense at mmengine/optim/optimizer/optimizer_wrapper.py:284': 1}))
    """

    def __init__(self, model: nn.Module) -> None:
        self.where: Counter[str] = Counter()
        self._model = getattr(model, 'module', model)
        self._there = WeakTensorKeyDictionary()

    @property
    def count(self) -> int:
        """How many reads there were."""
        return self.where.total()

    def put(self, tensors: Iterable[Tensor]) -> None:
        """Say that tensors are on the device."""
        for tensor in tensors:
            self._there[tensor] = True

    def __enter__(self) -> 'DeviceReads':
        self.put(self._model.state_dict(keep_vars=True).values())
        preprocessor = getattr(self._model, 'data_preprocessor', None)
        self._hook = preprocessor and preprocessor.register_forward_hook(
            lambda module, args, batch: self.put(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)))
        self._modes = _Functions(self), _Operations(self)
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        if self._hook:
            self._hook.remove()

    def _is_there(self, value) -> bool:
        return isinstance(value, Tensor) and (value.is_cuda or value in self._there)

    def _note(self, what: str) -> None:
        frames = [f for f in traceback.extract_stack() if '/torch/' not in f.filename and f.filename != __file__]
        self.where[f'{what} at {"/".join(frames[-1].filename.split("/")[-4:])}:{frames[-1].lineno}'] += 1


class _Operations(TorchDispatchMode):

    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        reads, name, inputs = self._reads, func._schema.name.removeprefix('aten::'), tree_leaves((args, kwargs))
        out = func(*args, **(kwargs or {}))
        there = [value for value in inputs if reads._is_there(value)]
        if there:
            results = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
            masks = name in _READS_A_MASK and any(value.dtype in (torch.bool, torch.uint8) for value in there[1:])
            copied = any(value.is_cuda for value in there) and any(not value.is_cuda for value in results)
            if name in _READS or masks or copied:
                reads._note(name)
            reads.put(value for value in results if not copied)
        return out


class _Functions(TorchFunctionMode):

    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, '__name__', '')
        out = func(*args, **(kwargs or {}))
        if name in _COPIES and self._reads._is_there(args[0]) and not args[0].is_cuda:
            self._reads._note(name)
            if name == 'cpu':
                out = out.clone()  # a copy that is not on the device
                del self._reads._there[out]
        return out
