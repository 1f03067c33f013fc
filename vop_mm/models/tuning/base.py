"""Base class of the tuning strategies, which decide which parameters train."""
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import Parameter


class TuningStrategy(metaclass=ABCMeta):
    """Base class of strategies that choose the parameters of a retriever to train.

    A subclass implements :meth:`trainable` and finds parameters by structure (the modules it walks), never by name.
    Freezing, counting, the optimizer and saving all follow from the ``requires_grad`` that :meth:`apply` sets. The head
    and the loss are trained by every strategy that trains anything.

    Args:
        logit_scale (bool): Train the backbone's logit scale as well, and its logit bias if it has one. Defaults to
            False.
    """

    def __init__(self, logit_scale: bool = False) -> None:
        self.logit_scale = logit_scale

    def prepare(self, model: nn.Module) -> None:
        """Add the modules that the method needs, before anything is frozen. Does nothing by default.

        Args:
            model (TextVideoRetriever): The retriever.
        """

    @abstractmethod
    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        """Return the parameters to train.

        Args:
            model (TextVideoRetriever): The retriever, with its ``backbone``, ``vision_tower`` and ``text_tower``.

        Returns:
            Iterable[Parameter]: In any order.
        """

    def apply(self, model: nn.Module) -> None:
        """Prepare the model, then freeze all parameters except those of :meth:`trainable`.

        Args:
            model (TextVideoRetriever): The retriever.
        """
        self.prepare(model)
        chosen = {id(p) for p in self.trainable(model)}
        if self.logit_scale:
            chosen.update(id(p) for p in (model.backbone.logit_scale, model.backbone.logit_bias) if p is not None)
        if chosen:  # a head with weights starts at random: it is trained unless nothing is
            chosen.update(id(p) for module in (model.head, model.loss_module) for p in module.parameters())
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)


def trainable_parameters(model: nn.Module) -> dict[str, Parameter]:
    """Return the parameters that train, by name.

    Args:
        model (nn.Module): A retriever.

    Returns:
        dict[str, Parameter]: In the model's order.
    """
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def trainable_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict without frozen parameters and CLIP's buffers, as a checkpoint stores it.

    Args:
        model (TextVideoRetriever): A retriever.

    Returns:
        dict[str, Tensor]: Tensors under their names in ``model.state_dict()``.
    """
    left_out = frozen_names(model)
    return {name: value for name, value in model.state_dict().items() if name not in left_out}


def frozen_names(model: nn.Module) -> set[str]:
    """Return the names in ``model.state_dict()`` that come with the backbone and never change.

    Args:
        model (TextVideoRetriever): A retriever.

    Returns:
        set[str]: Names of frozen parameters and of the backbone's buffers.
    """
    names = {name for name, p in model.named_parameters() if not p.requires_grad}
    backbone_buffers = {id(b) for b in model.backbone.buffers()}
    return names | {name for name, b in model.named_buffers() if id(b) in backbone_buffers}
