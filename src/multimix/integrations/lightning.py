"""MultiMix in Lightning: a module made of a model and a method, or a callback beside a module of one's own."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimix._optional import require
from multimix.integrations._training import MethodLike, TrainingMethod, as_method, cosine_schedule
from multimix.models import adapt
from multimix.ops import CrossEntropy, objective_of

pl: Any = require("lightning.pytorch", "pytorch_lightning", by=__name__)


class MultiMixModule(pl.LightningModule):
    """Train a model with a method; validate and test it by loss and accuracy.

    Batches are pairs (inputs, targets), for ``SelfDistilled`` perhaps ((view_1, view_2), targets); ``unpack`` makes
    such pairs of any others. Every checkpoint holds what the method knows, such as a teacher, and the state of its
    generator. Override ``configure_optimizers`` for any other optimiser.

    Logs ``train_loss`` and the terms of the loss, ``val_loss``, ``val_accuracy``, ``test_loss``, ``test_accuracy``
    (accuracy only where the network is trained for classes).

    Attributes:
        model: The model as it was given; what to save and to deploy.
        network: The same, as methods see it.
        method: The method in use, a copy of the one given.

    Args:
        model: What ``multimix.adapt`` takes, or has returned.
        method: A method, the name of one, or None for ``MultiMix()``.
        optimizer: A function of the parameters; None for AdamW.
        scheduler: A function of the optimiser and the number of its steps, stepped after each; None for half a cosine
            down to 0 with AdamW, and for a constant rate with an ``optimizer`` of your own.
        learning_rate: AdamW's peak.
        weight_decay: AdamW's.
        seed: Of the method's randomness; None for the one given to ``seed_everything``, else torch's own. Each rank
            adds its number.
        unpack: A function of a batch that returns (inputs, targets).
    """

    def __init__(
        self,
        model: nn.Module,
        method: MethodLike = None,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        seed: int | None = None,
        unpack: Callable[[Any], tuple[Any, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self._training = TrainingMethod(method, adapt(model))
        self.network: nn.Module = self._training.network
        self.learners = _trained(self._training)
        self._optimizer, self._scheduler = optimizer, scheduler
        self._rates: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
        self._seed, self._unpack = seed, unpack or _pair

    @property
    def model(self) -> nn.Module:
        """Return the model as it was given."""
        return getattr(self.network, "model", self.network)

    @property
    def method(self) -> Any:
        """Return the method in use, a copy of the one given."""
        return self._training.method

    def forward(self, inputs: Any) -> Tensor:
        """Return the model's logits."""
        return self.network(inputs)

    def on_fit_start(self) -> None:
        """Seed the method's generator, or take its state from the checkpoint."""
        _start(self._training, self._seed, self)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the method's loss."""
        return _step(self, self._training, self._unpack(batch))

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Step, and let the method follow."""
        super().optimizer_step(*arguments, **options)
        self._training.after_step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and the accuracy of clean inputs."""
        self._judge("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss and the accuracy of clean inputs."""
        self._judge("test", batch)

    def configure_optimizers(self) -> Any:
        """Return optimiser and schedule over all that is trained."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, **self._rates) if self._optimizer is None else self._optimizer(trained)
        steps = self.trainer.estimated_stepping_batches
        if self._scheduler is not None:
            schedule = self._scheduler(optimizer, int(steps))
        elif self._optimizer is None and steps < float("inf"):
            schedule = cosine_schedule(optimizer, steps)
        else:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the method knows."""
        checkpoint["multimix"] = self._training.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the method what it knew, the state of its generator once training starts."""
        if (saved := checkpoint.get("multimix")) is not None:
            self._training.load_state_dict(saved)

    def _judge(self, stage: str, batch: Any) -> None:
        inputs, targets = self._unpack(batch)
        outputs = self.network(inputs)
        objective = objective_of(self.network)
        wanted = objective.targets(targets, outputs.shape[-1])
        values = {f"{stage}_loss": objective(outputs, wanted)}
        if isinstance(objective, CrossEntropy) and outputs.ndim == 2:
            values[f"{stage}_accuracy"] = (outputs.argmax(-1) == wanted.argmax(-1)).float().mean()
        self.log_dict(values, batch_size=len(targets), prog_bar=True, sync_dist=True)


class MultiMixCallback(pl.Callback):
    """Train a module of one's own with a method, without a change to it.

    While ``fit`` runs, the module's ``training_step`` is replaced by one that unpacks the batch, calls the method on
    ``multimix.adapt(module.<model>)`` and returns its total loss. Nothing else changes: optimisers, validation, hooks
    and checkpoints are the module's, and its own ``training_step``, with all that it logs, is not run; ``train_loss``
    and the terms of the loss are logged in its place. At teardown it is put back. What the method knows is saved with
    the callback's state in every checkpoint.

    Args:
        method: A method, the name of one, or None for ``MultiMix()``.
        model: Dotted name of the model inside the module; empty for the module itself.
        encoder: As ``multimix.adapt`` has it; likewise ``head`` and ``pool``.
        seed: As in :class:`MultiMixModule`.
        unpack: A function of a batch that returns (inputs, targets).
    """

    def __init__(
        self,
        method: MethodLike = None,
        *,
        model: str = "model",
        encoder: str | None = None,
        head: str | None = None,
        pool: Callable | None = None,
        seed: int | None = None,
        unpack: Callable[[Any], tuple[Any, Tensor]] | None = None,
    ) -> None:
        self.method = as_method(method)
        self.model, self.seed, self.unpack = model, seed, unpack or _pair
        self._split: dict[str, Any] = {"encoder": encoder, "head": head, "pool": pool}
        self._training: TrainingMethod | None = None
        self._loaded: dict[str, Any] | None = None
        self._replaced: dict[str, Any] | None = None
        self._steps: int | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Adapt the model and take the place of ``training_step``.

        Raises:
            ValueError: If there is no such model, it cannot be split, the module optimises by hand, or the method
                learns parameters of its own, which the module's optimiser does not know.
        """
        if not pl_module.automatic_optimization:
            raise ValueError("module must leave optimisation to Lightning (automatic_optimization), or call the method")
        try:
            model = pl_module.get_submodule(self.model)
        except AttributeError as error:
            modules = f"{type(pl_module).__name__} ({', '.join(name for name, _ in pl_module.named_children())})"
            raise ValueError(f"model must name a module of {modules}, got {self.model!r}") from error
        training = TrainingMethod(self.method, adapt(model, **self._split))
        if training.parameters():
            raise ValueError(
                f"method {self.method.name} learns parameters of its own, which the module's optimiser does not know;"
                " use MultiMixModule"
            )
        if self._loaded is not None:
            training.load_state_dict(self._loaded)
        self._training, self._loaded = training, None
        _start(training, self.seed, pl_module)
        self._replaced = {name: step for name, step in vars(pl_module).items() if name == "training_step"}
        pl_module.training_step = lambda batch, batch_idx: _step(pl_module, training, self.unpack(batch))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Note how many steps the optimiser has taken, some of them perhaps before a checkpoint."""
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Let the method follow if the optimiser has stepped; callbacks that save come later."""
        if self._training is not None and trainer.global_step != self._steps:
            self._training.after_step()
            self._steps = trainer.global_step

    def teardown(self, trainer: Any, pl_module: Any, stage: Any = None) -> None:
        """Give the module its own ``training_step`` back."""
        if self._replaced is not None:
            vars(pl_module).pop("training_step")
            vars(pl_module).update(self._replaced)
            self._replaced = None

    on_exception = teardown  # after which Lightning may not tear down

    def state_dict(self) -> dict[str, Any]:
        """Return what the method knows."""
        return {} if self._training is None else self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what the method knew until training starts."""
        self._loaded = state_dict or None


def _trained(training: TrainingMethod) -> nn.ModuleList:
    """Return the innermost parts that learn parameters: Lightning warns of teachers, which are in eval mode."""
    found = nn.ModuleList()
    for part in reversed(training.learners):
        known = {id(p) for p in found.parameters()}
        if any(p.requires_grad and id(p) not in known for p in part.parameters()):
            found.append(part)
    return found


def _start(training: TrainingMethod, seed: int | None, module: Any) -> None:
    if seed is None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))
    training.start(seed + module.global_rank, module.device)


def _step(module: Any, training: TrainingMethod, batch: tuple[Any, Tensor]) -> Tensor:
    training.progress(module.trainer.global_step, module.trainer.estimated_stepping_batches)
    losses = training(*batch)
    module.log("train_loss", losses.total.detach(), batch_size=len(batch[1]), prog_bar=True)
    module.log_dict({f"train_{key}": term for key, term in losses.terms.items()}, batch_size=len(batch[1]))
    return losses.total


def _pair(batch: Any) -> tuple[Any, Tensor]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return batch[0], batch[1]
    raise ValueError(
        f"batch must be a pair (inputs, targets), got {type(batch).__name__}; pass unpack=, a function that makes one"
    )
