"""Build optimizers: `optimizer(network) -> torch.optim.Optimizer`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer


def sgd(
    network: nn.Module,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
    exclude_norm_bias: bool = False,
) -> SGD:
    """Build SGD with momentum, or Nesterov's."""
    _check(lr=lr, momentum=momentum, weight_decay=weight_decay)
    groups = param_groups_weight_decay(network, weight_decay, exclude_norm_bias)
    if nesterov and momentum == 0:
        raise ValueError("optimizer.nesterov=true: needs optimizer.momentum > 0")
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def adamw(
    network: nn.Module,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    exclude_norm_bias: bool = True,
) -> AdamW:
    """Build AdamW (arXiv 1711.05101)."""
    _check(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
    return AdamW(
        param_groups_weight_decay(network, weight_decay, exclude_norm_bias), lr=lr, betas=(beta1, beta2), eps=eps
    )


def rmsprop_tf(
    network: nn.Module,
    lr: float,
    alpha: float,
    momentum: float,
    eps: float,
    weight_decay: float,
    exclude_norm_bias: bool = True,
) -> "RMSpropTF":
    """Build RMSprop as TensorFlow computes it; see `RMSpropTF`."""
    _check(lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=weight_decay)
    return RMSpropTF(
        param_groups_weight_decay(network, weight_decay, exclude_norm_bias),
        lr=lr,
        alpha=alpha,
        momentum=momentum,
        eps=eps,
    )


def param_groups_weight_decay(network: nn.Module, weight_decay: float, exclude_norm_bias: bool) -> list[dict[str, Any]]:
    """Group the trainable parameters; with `exclude_norm_bias`, biases and norms (1-d) get no weight decay."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not exclude_norm_bias:
        return [{"params": trainable, "weight_decay": weight_decay}]
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


class RMSpropTF(Optimizer):
    """RMSprop as TensorFlow computes it, on which the published MobileNetV3 and GhostNetV2 recipes depend.

    Unlike `torch.optim.RMSprop`: the mean of squares starts at one, epsilon is inside the square root, and the
    learning rate enters the momentum buffer, so that a falling rate does not shrink earlier steps.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        alpha: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "alpha": alpha, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the parameters; returns what `closure`, called before with gradients, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._step(params, group)
        return loss

    def _step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of a group, with one call for all of them: on a GPU each call is a launch."""
        foreach: Any = torch  # whose foreach functions have no types
        for param in params:
            if not self.state[param]:
                self.state[param] = {"square": torch.ones_like(param), "momentum": torch.zeros_like(param)}
        grads = [param.grad for param in params]
        squares, momenta = ([self.state[param][name] for param in params] for name in ("square", "momentum"))
        if group["weight_decay"] != 0:
            grads = foreach._foreach_add(grads, params, alpha=group["weight_decay"])
        foreach._foreach_mul_(squares, group["alpha"])
        foreach._foreach_addcmul_(squares, grads, grads, 1 - group["alpha"])
        roots = foreach._foreach_add(squares, group["eps"])
        foreach._foreach_sqrt_(roots)
        foreach._foreach_mul_(momenta, group["momentum"])
        foreach._foreach_addcdiv_(momenta, grads, roots, group["lr"])
        foreach._foreach_sub_(params, momenta)


def _check(**values: float) -> None:
    """Raise ValueError for a number out of range."""
    for name, value in values.items():
        below_one = name in {"momentum", "alpha", "beta1", "beta2"}
        if value < 0 or (name == "lr" and value == 0) or (below_one and value >= 1):
            allowed = "a number in [0, 1)" if below_one else "a number > 0" if name == "lr" else "a number >= 0"
            raise ValueError(f"optimizer.{name}={value}: must be {allowed}")
