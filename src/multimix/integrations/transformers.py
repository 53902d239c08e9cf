"""MultiMix in Hugging Face's Trainer."""

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimix._modules import evaluating
from multimix._optional import require
from multimix.integrations._batches import WEIGHTS, Mean, Parts, judge, parts_of
from multimix.integrations._training import MethodLike, TrainingMethod, adapted, as_method, trained_for
from multimix.ops import CrossEntropy, Objective, objective_of
from multimix.protocols import Network

hf: Any = require("transformers", by=__name__)
require("accelerate", by=__name__)

STATE_FILE = "multimix.pt"
"""What lies beside the trainer's own files in a checkpoint: tensors, numbers and texts, read without running any."""


class MultiMixTrainer(hf.Trainer):
    """Hugging Face's Trainer, with the loss of a method in training.

    The model is seen through ``multimix.adapt``. What a mini-batch holds beside labels is what the method embeds; a
    single floating-point tensor, such as ``pixel_values``, is given as one, which methods that mix inputs need, and
    whatever its name is where the model takes a single argument. A column ``sample_weight`` says how much each example
    counts. The method's randomness follows ``args.seed``. A teacher follows the optimiser's steps; it is written beside
    every checkpoint and read again by ``train(resume_from_checkpoint=...)``. ``args.label_smoothing_factor`` smooths
    classes as the Trainer would. Several processes, as torchrun or accelerate start them, mix their own mini-batches
    with a device each, and average gradients; DataParallel, FSDP and DeepSpeed are refused.

    Evaluation and prediction are the Trainer's own where the model returns a loss of its labels and nothing else is
    asked for. Of a model that returns none, and where there are ``objective``, weights or class probabilities,
    predictions are logits, and the loss is that of clean inputs by what the method trains for, over all examples in one
    pass; of several processes, a mean over their mini-batches.

    Attributes:
        method: The method in use, a copy of the one given.

    Args:
        model: As the Trainer has it, or any other module that ``multimix.adapt`` takes or has returned; likewise
            ``args`` and all arguments that are not named here.
        method: A method, the name of one, or None for ``MultiMix()``.
        encoder: As ``multimix.adapt`` has it, for models that it does not know; likewise ``head`` and ``pool``.
        objective: What the model is trained for, as ``multimix.adapt`` has it. A network takes it on, unless it has
            another.

    Raises:
        TypeError: If ``method`` or ``objective`` is none.
        ValueError: If ``compute_loss_func`` is given too, the model cannot be split, the objectives of model and
            trainer contradict each other, labels are to be smoothed that are no classes, a process would have several
            devices, or processes would share what a method learns.
    """

    label_smoother: Any
    _signature_columns: Any
    loss_is_scaled_for_ga = False  # a mean over the mini-batch, which the Trainer divides by the mini-batches of a step

    def __init__(
        self,
        model: nn.Module | None = None,
        args: Any = None,
        *positional: Any,
        method: MethodLike = None,
        encoder: str | None = None,
        head: str | None = None,
        pool: Callable | None = None,
        objective: Objective | None = None,
        **options: Any,
    ) -> None:
        if options.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func must be left out: method computes the loss")
        self._given = as_method(method)
        self._split: dict[str, Any] = {"encoder": encoder, "head": head, "pool": pool, "objective": objective}
        self._training: TrainingMethod | None = None
        self._trained: nn.Module | None = None
        self._checkpoint: Path | None = None
        self._judged: list[Mean] = []
        self._returned: dict[bool, bool] = {}
        share = getattr(args, "label_smoothing_factor", 0.0)
        if share and not hasattr(model, "config"):  # which the Trainer looks into to smooth labels
            args = copy.copy(args)
            args.label_smoothing_factor = 0.0
        super().__init__(model, args, *positional, **options)
        self.args.label_smoothing_factor = share
        if share and isinstance(self.model, hf.PreTrainedModel):
            self.label_smoother = hf.trainer_pt_utils.LabelSmoother(epsilon=share)
        if self.args.n_gpu > 1 or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "args must give each process one device and a whole model (no DataParallel, FSDP or DeepSpeed), got"
                f" {self.args.n_gpu} GPUs; start a process for each with torchrun, or set CUDA_VISIBLE_DEVICES"
            )
        self.model_accepts_loss_kwargs = False  # or older Trainers would take the loss for a sum over the step
        if self.model_init is None:
            self._prepare()
        self.add_callback(_Follow(self))

    @property
    def method(self) -> Any:
        """Return the method in use."""
        return self._given if self._training is None else self._training.method

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **options: Any) -> Any:
        """Train as the Trainer does; a checkpoint gives the method its state back, too."""
        last = hf.trainer_utils.get_last_checkpoint
        folder = last(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        self._checkpoint = Path(folder) if folder else None
        return super().train(resume_from_checkpoint, *arguments, **options)

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        """Return the Trainer's optimiser, which also trains what the method learns."""
        learned = self._prepare().parameters()
        made = self.optimizer is None
        optimizer = super().create_optimizer(*arguments, **options)
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if made and learned:
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        elif not known.issuperset(map(id, learned)):  # those of an earlier train() are there
            raise ValueError(f"optimizers must be left out: method {self.method.name} learns parameters of its own")
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: Any = False,  # noqa: FBT002 (the host's own signature)
        **options: Any,
    ) -> Any:
        """Return the method's loss in training, the Trainer's own in evaluation; labels must be there to train on."""
        parts = self._parts(inputs)
        if not model.training:
            if not self._judges(parts, inputs):
                return super().compute_loss(model, inputs, return_outputs, **options)
            loss, logits = self._judge(parts)
            return (loss, {"logits": logits}) if return_outputs else loss
        training = self._prepare()
        training.progress(self.state.global_step, self.state.max_steps)
        if parts.targets is None:
            raise ValueError(
                f"inputs must hold {self._label(inputs)!r} to train with a method, got {', '.join(inputs) or 'nothing'}"
                "; args.label_names says how else labels are called"
            )
        # Autocast as accelerate puts it around the model's own forward, which is not called.
        with self.accelerator.autocast(), trained_for(training.network, self._objective):
            loss = _within(model, self.accelerator.unwrap_model(model), lambda: training(*parts).total)
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prediction_loss_only: Any,
        ignore_keys: Any = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return the loss of clean inputs, the logits, and the targets; the Trainer's own where it has them."""
        inputs = self._prepare_inputs(inputs)
        parts = self._parts(inputs)
        if not self._judges(parts, inputs):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys=ignore_keys)
        loss, logits = self._judge(parts)
        return (loss, None, None) if prediction_loss_only else (loss, logits, parts.targets)

    def _judges(self, parts: Parts, batch: Mapping[str, Any]) -> bool:
        """Whether the Trainer has no loss of its own for a batch, or another than the method trains for."""
        if self._split["objective"] is not None or parts.weights is not None:
            return True
        if not type(self.model).__module__.startswith("transformers."):
            return self.args.label_smoothing_factor > 0 or not self._has_own(batch, labelled=parts.targets is not None)
        if not isinstance(parts.targets, Tensor):
            return False
        # These models know class indices by themselves, take rows for labels of which each may hold, and those as
        # floating-point numbers only.
        classes = isinstance(objective_of(self._prepare().network), CrossEntropy)
        own = parts.targets.is_floating_point() != classes and not (classes and parts.targets.ndim == 2)
        return not own or self._label(batch) not in _parameters(self.model)

    def _has_own(self, batch: Mapping[str, Any], *, labelled: bool) -> bool:
        """Whether a model that is not of transformers takes a batch and returns its loss, or without labels names."""
        if not _parameters(self.model).issuperset(batch):
            return False
        if labelled not in self._returned:
            with evaluating(self.model), torch.no_grad():
                outputs = self.model(**batch)
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0]
            is_loss = isinstance(loss, Tensor) and loss.ndim == 0
            self._returned[labelled] = not isinstance(outputs, Tensor) and (is_loss or not labelled)
        return self._returned[labelled]

    def _judge(self, parts: Parts) -> tuple[Tensor | None, Tensor]:
        """Return the loss of clean inputs, None without targets, and the logits."""
        network = self._prepare().network
        with evaluating(network), torch.no_grad(), self.accelerator.autocast(), trained_for(network, self._objective):
            if parts.targets is None:
                return None, network(parts.inputs).float()
            logits, found = judge(network, *parts)
        self._judged.append(found["loss"])
        return found["loss"].value, logits.float()

    def evaluation_loop(self, *arguments: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """Return what the Trainer finds; a loss that is not its own is a mean over all that counts, in one pass."""
        self._judged = []
        output = super().evaluation_loop(*arguments, metric_key_prefix=metric_key_prefix, **options)
        if self._judged and self.args.world_size == 1:
            values, masses = (torch.stack(column).double().cpu() for column in zip(*self._judged, strict=True))
            output.metrics[f"{metric_key_prefix}_loss"] = float((values * masses).sum() / masses.sum())
        return output

    def _label(self, batch: Mapping[str, Any]) -> str:
        """Return what the labels of a batch are called; the Trainer's collator has a name of its own for them."""
        names = [*self.label_names, "labels"]
        return next((name for name in names if batch.get(name) is not None), names[0])

    def _parts(self, batch: Mapping[str, Any]) -> Parts:
        """Return the parts of a batch; of a single input that the model calls otherwise, the input itself."""
        parts = parts_of(batch, self._label(batch))
        alone = isinstance(parts.inputs, Mapping) and len(parts.inputs) == 1 and self._inputs.isdisjoint(parts.inputs)
        return parts._replace(inputs=next(iter(parts.inputs.values()))) if alone else parts

    def _set_signature_columns_if_needed(self) -> None:
        """Keep what the model inside a network takes, labels, and weights of examples, too."""
        super()._set_signature_columns_if_needed()
        more = (*self._inputs, *self.label_names, "labels", WEIGHTS)
        self._signature_columns = list(dict.fromkeys((*self._signature_columns, *more)))

    @property
    def _inputs(self) -> set[str]:
        """Names of what the model, or the one inside a network, is called with."""
        model = getattr(self.model, "model", None) if isinstance(self.model, Network) else None
        return _parameters(model or self.model) - {*self.label_names}

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        """Return a data set without columns to remove, unless the model's only input has another name than all."""
        known = not self._inputs.isdisjoint(dataset.column_names)
        return super()._remove_unused_columns(dataset, description) if known else dataset

    def _get_collator_with_removed_columns(self, data_collator: Callable, description: str | None = None) -> Callable:
        """Return a collator that removes columns, unless the model's only input has another name than all of them."""
        removing = super()._get_collator_with_removed_columns(data_collator, description)
        return partial(_collate, self._inputs, removing, data_collator)

    def _prepare(self) -> TrainingMethod:
        """Return the method with the model that there is now; ``model_init`` makes a new one for each training."""
        if self._training is None or self._trained is not self.model:
            self._training = TrainingMethod(self._given, adapted(self.model, **self._split))
            self._trained = self.model
            if self.args.world_size > 1 and self._training.parameters():
                raise ValueError(
                    f"args must train in one process: method {self.method.name} learns parameters of its own"
                )
            self._training.start(self.args.seed + self.args.process_index, self.args.device)
            self._objective = self._smoothed(objective_of(self._training.network))
        return self._training

    def _smoothed(self, own: Objective) -> Objective:
        share = self.args.label_smoothing_factor
        if not share:
            return own
        if not isinstance(own, CrossEntropy) or own.label_smoothing not in (0, share):
            raise ValueError(
                f"args.label_smoothing_factor must be 0 for {own!r}, got {share}: it smooths classes, and does so alone"
            )
        return replace(own, label_smoothing=share)


def _within(wrapper: nn.Module, model: nn.Module, function: Callable[[], Tensor]) -> Tensor:
    """Call a function as the forward pass of a wrapped model, so that DistributedDataParallel averages gradients."""
    if wrapper is model:
        return function()
    own = {name: value for name, value in vars(model).items() if name == "forward"}  # accelerate's, if any

    def forward(_: None) -> Tensor:
        vars(model).pop("forward")
        vars(model).update(own)
        return function()

    vars(model)["forward"] = forward
    return wrapper(None)


def _parameters(model: nn.Module) -> set[str]:
    return set(inspect.signature(type(model).forward).parameters)  # the instance's own may be wrapped by accelerate


def _collate(inputs: Collection[str], removing: Callable, keeping: Callable, rows: list[Any]) -> Any:
    known = not isinstance(rows[0], Mapping) or any(name in inputs for name in rows[0])
    return (removing if known else keeping)(rows)


class _Follow(hf.TrainerCallback):
    """Lets the method follow the optimiser; its state is written beside checkpoints and read from there."""

    def __init__(self, trainer: MultiMixTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        training = self.trainer._prepare()
        if (folder := self.trainer._checkpoint) is not None:
            if not (folder / STATE_FILE).is_file():
                raise FileNotFoundError(f"there is no {STATE_FILE} in {folder}: MultiMixTrainer did not write it")
            saved, own = (_read(folder / name) for name in (STATE_FILE, _state_file(args)))
            training.load_state_dict(saved if args.process_index == 0 else {**saved, "generator": own})
            self.trainer._checkpoint = None
        training.start(args.seed + args.process_index, args.device)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._prepare().after_step()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            saved = self.trainer._prepare().state_dict()
            torch.save(saved if args.process_index == 0 else saved["generator"], folder / _state_file(args))


def _state_file(args: Any) -> str:
    """Return the file of a process: of the first one all, of others the state of their generator."""
    return STATE_FILE if args.process_index == 0 else f"multimix-{args.process_index}.pt"


def _read(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else None
