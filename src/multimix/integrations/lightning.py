"""MultiMix in Lightning: a module made of a model and a method, or a callback beside a module of one's own."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimix._declared import Ge, check
from multimix._optional import require
from multimix.integrations._batches import Parts, judge, parts_of
from multimix.integrations._training import MethodLike, TrainingMethod, adapted, as_method, cosine_schedule
from multimix.ops import Objective
from multimix.protocols import declares

pl: Any = require("lightning.pytorch", "pytorch_lightning", by=__name__)

Unpack = Callable[[Any], tuple[Any, ...]]
"""A function of a batch that returns (inputs, targets), or (inputs, targets, weights)."""


class MultiMixModule(pl.LightningModule):
    """Train a model with a method; validate and test it by loss and accuracy, and predict its logits.

    Batches are pairs (inputs, targets), for ``SelfDistilled`` perhaps ((view_1, view_2), targets), of which the first
    view is judged, or mappings of inputs and ``labels``, perhaps with ``sample_weight``; ``unpack`` makes pairs of any
    others. To predict, they may also be inputs alone.

    Every checkpoint holds what the method knows, such as a teacher, and the state of its generator; it may be
    validated, tested and predicted with by a module of any method, and goes on training with the same one. It also has
    ``learning_rate``, ``weight_decay``, ``seed`` and a method given by name, so that ``load_from_checkpoint(file,
    model=...)`` is to be told the rest. Override ``configure_optimizers`` for any other optimiser.

    Logs ``train_loss`` and the terms of the loss, ``val_loss``, ``val_accuracy``, ``test_loss``, ``test_accuracy``
    (of classes, or the share of all labels where several may hold). Means over an epoch are those of one pass over all
    its examples: labels that are ignored count in neither, class weights in the loss, weights of examples in both.

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
        learning_rate: AdamW's peak, 1e-3 if None. With an ``optimizer`` of your own, its rate in place of the one that
            it has, if not None. ``Tuner.lr_find`` sets it.
        weight_decay: AdamW's, 0.05 if None.
        seed: Of the method's randomness; None for the one given to ``seed_everything``, else torch's own. Each rank
            adds its number.
        unpack: A function of a batch that returns (inputs, targets), or (inputs, targets, weights) of examples that
            count more or less, (b,).
        objective: What the model is trained for, as ``multimix.adapt`` has it. A network takes it on, unless it has
            another.

    Raises:
        TypeError: If an argument is not of its kind.
        ValueError: If the model cannot be split, the objectives of model and module contradict each other, or
            ``weight_decay`` is given with an ``optimizer``.
    """

    def __init__(
        self,
        model: nn.Module,
        method: MethodLike = None,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        seed: int | None = None,
        unpack: Unpack | None = None,
        objective: Objective | None = None,
    ) -> None:
        super().__init__()
        check(Annotated[float, Ge(0)] | None, learning_rate=learning_rate, weight_decay=weight_decay)
        check(int | None, seed=seed)
        for name, function in (("optimizer", optimizer), ("scheduler", scheduler), ("unpack", unpack)):
            if not (function is None or callable(function)):
                raise TypeError(f"{name} must be a function or None, got {function!r}")
        if optimizer is not None and weight_decay is not None:
            raise ValueError("weight_decay must be left out with an optimizer of your own, which has its own")
        self.save_hyperparameters("learning_rate", "weight_decay", "seed", *["method"] * isinstance(method, str))
        self._training = TrainingMethod(method, adapted(model, objective))
        self.network: nn.Module = self._training.network
        self.learners = _trained(self._training)
        self._optimizer, self._scheduler = optimizer, scheduler
        self.learning_rate = 1e-3 if optimizer is None and learning_rate is None else learning_rate
        self._configured_rate = self.learning_rate
        self._weight_decay = 0.05 if weight_decay is None else weight_decay
        self._seed, self._unpack = seed, unpack

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
        if self.learning_rate != self._configured_rate:  # by LearningRateFinder, once the optimiser was there
            for config in self.trainer.lr_scheduler_configs:
                config.scheduler.base_lrs = [self.learning_rate for _ in config.scheduler.base_lrs]
        _start(self._training, self._seed, self)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the method's loss."""
        if self._training.generator is None:  # as Lightning's tuners train before they start a fit
            _start(self._training, self._seed, self)
        return _step(self, self._training, _unpacked(batch, self._unpack))

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Step, and let the method follow."""
        super().optimizer_step(*arguments, **options)
        self._training.after_step()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss and the accuracy of clean inputs."""
        self._judge("val", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss and the accuracy of clean inputs."""
        self._judge("test", batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the logits of a batch's inputs; a batch that is no pair is the inputs alone."""
        return self.network(self._clean(_unpacked(batch, self._unpack, labelled=False).inputs))

    def configure_optimizers(self) -> Any:
        """Return optimiser and schedule over all that is trained."""
        trained = [p for p in self.parameters() if p.requires_grad]
        self._configured_rate = rate = self.learning_rate
        if self._optimizer is None:
            optimizer: Optimizer = torch.optim.AdamW(trained, lr=rate or 0.0, weight_decay=self._weight_decay)
        else:
            optimizer = self._optimizer(trained)
            for group in optimizer.param_groups if rate is not None else ():
                group["lr"] = rate
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
        """Give the method what it knew, the state of its generator once training starts.

        Raises:
            ValueError: If training is to go on with another method; other stages only warn of what they leave out.
        """
        fits = self._trainer is not None and self.trainer.state.fn == "fit"
        saved = checkpoint.get("multimix")
        try:
            if saved is not None:
                self._training.load_state_dict(saved)
            elif self._training.learners:
                raise ValueError("checkpoint was not written by MultiMixModule: it has no state of a method")
        except ValueError as error:
            if fits:
                raise
            warnings.warn(f"{error}; the model is loaded, and what the method has learned is not", stacklevel=2)
            kept = {f"learners.{name}": value for name, value in self.learners.state_dict().items()}
            of_model = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("learners.")}
            checkpoint["state_dict"] = of_model | kept

    def _judge(self, stage: str, batch: Any) -> None:
        parts = _unpacked(batch, self._unpack)
        _, found = judge(self._training.network, self._clean(parts.inputs), parts.targets, parts.weights)
        for name, mean in found.items():
            self.log(f"{stage}_{name}", mean.value, batch_size=mean.mass, prog_bar=True, sync_dist=True)

    def _clean(self, inputs: Any) -> Any:
        """Return the student's view where a method trains on two of them."""
        return inputs[0] if _is_list(inputs) and declares(self.method, "views") else inputs


class MultiMixCallback(pl.Callback):
    """Train a module of one's own with a method, without a change to it.

    While ``fit`` runs, the module's ``training_step`` is replaced by one that unpacks the batch, calls the method on
    ``multimix.adapt(module.<model>)`` and returns its total loss. Nothing else changes: optimisers, validation, hooks
    and checkpoints are the module's, and its own ``training_step``, with all that it logs, is not run; ``train_loss``
    and the terms of the loss are logged in its place. At teardown it is put back. What the method knows is saved with
    the callback's state in every checkpoint. Lightning's tuners (``lr_find``, ``scale_batch_size``) set all other
    callbacks aside, and search with the module's own ``training_step``: of that, a warning.

    Args:
        method: A method, the name of one, or None for ``MultiMix()``.
        model: Dotted name of the model inside the module; empty for the module itself.
        encoder: As ``multimix.adapt`` has it; likewise ``head`` and ``pool``.
        seed: As in :class:`MultiMixModule`.
        unpack: As in :class:`MultiMixModule`.
        objective: What the model is trained for, as ``multimix.adapt`` has it; what validates it is the module's own.
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
        unpack: Unpack | None = None,
        objective: Objective | None = None,
    ) -> None:
        check(int | None, seed=seed)
        self.method = as_method(method)
        self.model, self.seed, self.unpack = model, seed, unpack
        self._split: dict[str, Any] = {"encoder": encoder, "head": head, "pool": pool, "objective": objective}
        self._training: TrainingMethod | None = None
        self._trained: Any = None
        self._loaded: dict[str, Any] | None = None
        self._replaced: dict[str, Any] | None = None
        self._steps: int | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget what belongs to another module or an earlier run."""
        self._loaded = None
        if self._trained is not pl_module:
            self._training, self._trained = None, pl_module
        tuners = (pl.callbacks.LearningRateFinder, pl.callbacks.BatchSizeFinder)
        for tuner in trainer.callbacks if stage == "fit" else ():
            if isinstance(tuner, tuners):
                warnings.warn(
                    f"{type(tuner).__name__} sets MultiMixCallback aside and searches with the module's own"
                    " training_step; use MultiMixModule",
                    stacklevel=2,
                )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Adapt the model and take the place of ``training_step``.

        Raises:
            ValueError: If there is no such model, it cannot be split, the module optimises by hand or has a method
                already, or the method learns parameters of its own, which the module's optimiser does not know.
        """
        if isinstance(pl_module, MultiMixModule):
            raise ValueError(f"module must be one without a method, got MultiMixModule with {pl_module.method!r}")
        if not pl_module.automatic_optimization:
            raise ValueError("module must leave optimisation to Lightning (automatic_optimization), or call the method")
        try:
            model = pl_module.get_submodule(self.model)
        except AttributeError as error:
            modules = f"{type(pl_module).__name__} ({', '.join(name for name, _ in pl_module.named_children())})"
            raise ValueError(f"model must name a module of {modules}, got {self.model!r}") from error
        training = self._training
        if training is None or getattr(training.network, "model", training.network) is not model:
            training = TrainingMethod(self.method, adapted(model, **self._split))
        if training.parameters():
            raise ValueError(
                f"method {self.method.name} learns parameters of its own, which the module's optimiser does not know;"
                " use MultiMixModule"
            )
        if self._loaded is not None:
            training.load_state_dict(self._loaded)
        elif training.learners and trainer.ckpt_path:
            warnings.warn("the checkpoint has no state of MultiMixCallback: its method starts anew", stacklevel=2)
        self._training, self._loaded = training, None
        _start(training, self.seed, pl_module)
        self._replaced = {name: step for name, step in vars(pl_module).items() if name == "training_step"}
        pl_module.training_step = lambda batch, batch_idx: _step(pl_module, training, _unpacked(batch, self.unpack))

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


def _step(module: Any, training: TrainingMethod, batch: Parts) -> Tensor:
    training.progress(module.trainer.global_step, module.trainer.estimated_stepping_batches)
    losses = training(*batch)
    size = len(batch.targets)
    module.log("train_loss", losses.total.detach(), batch_size=size, prog_bar=True)
    module.log_dict({f"train_{key}": term for key, term in losses.terms.items()}, batch_size=size)
    return losses.total


def _is_list(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and not isinstance(value, PackedSequence)


def _unpacked(batch: Any, unpack: Unpack | None, *, labelled: bool = True) -> Parts:
    """Return the parts of a batch, by a function of the user's if there is one; to predict, it may have no targets."""
    if unpack is not None:
        parts = unpack(batch)
        if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3) or not isinstance(parts[1], Tensor):
            kind = type(parts).__name__
            raise ValueError(f"unpack must return (inputs, targets), perhaps with weights, and tensors, got {kind}")
        return Parts(*parts)
    found: Parts | None
    held: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        found, held = parts_of(batch), batch
    elif _is_list(batch):
        held = [type(part).__name__ for part in batch]
        found = Parts(*batch) if len(held) in (1, 2) else None
    else:
        found = Parts(batch)
    if found is not None and (isinstance(found.targets, Tensor) or not labelled):
        return found
    raise ValueError(
        f"batch must be a pair (inputs, targets) or a mapping with 'labels', got {type(batch).__name__}"
        f"{' of ' * bool(held)}{', '.join(map(str, held))}; pass unpack=, a function that makes one"
    )
