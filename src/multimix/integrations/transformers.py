"""MultiMix in Hugging Face's Trainer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimix._optional import require
from multimix.integrations._training import MethodLike, TrainingMethod, as_method, smooth
from multimix.models import adapt
from multimix.ops import as_probabilities

hf: Any = require("transformers", by=__name__)
require("accelerate", by=__name__)

STATE_FILE = "multimix.pt"
"""What lies beside the trainer's own files in a checkpoint: tensors, numbers and texts, read without running any."""


class MultiMixTrainer(hf.Trainer):
    """Hugging Face's Trainer, with the loss of a method in training; evaluation and prediction are its own.

    The model is seen through ``multimix.adapt``. What a mini-batch holds beside labels is what the method embeds; a
    single floating-point tensor, such as ``pixel_values``, is given as one, which methods that mix inputs need. The
    method's randomness follows ``args.seed``. A teacher follows the optimiser's steps; it is written beside every
    checkpoint and read again by ``train(resume_from_checkpoint=...)``. ``args.label_smoothing_factor`` smooths class
    indices as the Trainer would. One process on one device: ``multimix.adapt`` calls the model's parts, which wrappers
    such as DistributedDataParallel would not notice.

    Attributes:
        method: The method in use, a copy of the one given.

    Args:
        model: As the Trainer has it; likewise ``args`` and all arguments that are not named here.
        method: A method, the name of one, or None for ``MultiMix()``.
        encoder: As ``multimix.adapt`` has it, for models that it does not know; likewise ``head`` and ``pool``.

    Raises:
        TypeError: If ``method`` is none.
        ValueError: If ``compute_loss_func`` is given too, the model cannot be split, or training would be spread over
            devices.
    """

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
        **options: Any,
    ) -> None:
        if options.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func must be left out: method computes the loss")
        self._given = as_method(method)
        self._split: dict[str, Any] = {"encoder": encoder, "head": head, "pool": pool}
        self._training: TrainingMethod | None = None
        self._trained: nn.Module | None = None
        self._checkpoint: Path | None = None
        super().__init__(model, args, *positional, **options)
        spread = self.args.world_size > 1 or self.args.n_gpu > 1
        if spread or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError(
                "args must train in one process on one device (no DDP, DataParallel, FSDP or DeepSpeed), got"
                f" {self.args.world_size} processes with {self.args.n_gpu} GPUs; set CUDA_VISIBLE_DEVICES, or call the"
                " method in a loop of your own"
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
        own = self.optimizer is None
        optimizer = super().create_optimizer(*arguments, **options)
        if learned and not own:
            raise ValueError(f"optimizers must be left out: method {self.method.name} learns parameters of its own")
        if learned:
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: Any = False,  # noqa: FBT002 (the host's own signature)
        **options: Any,
    ) -> Any:
        """Return the method's loss in training, the Trainer's own in evaluation; labels must be there to train on."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, **options)
        training = self._prepare()
        training.progress(self.state.global_step, self.state.max_steps)
        given, targets = self._inputs_and_targets(inputs)
        with self.accelerator.autocast():  # accelerate puts it around the model's own forward, which is not called
            loss = training(given, targets).total
        return (loss, {"loss": loss}) if return_outputs else loss

    def _inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Any, Tensor]:
        name = self.label_names[0] if self.label_names else "labels"
        if batch.get(name) is None:
            raise ValueError(f"inputs must hold {name!r} to train with a method, got {', '.join(batch)}")
        inputs = {key: value for key, value in batch.items() if key != name}
        targets = batch[name]
        share = self.args.label_smoothing_factor
        if share and not targets.is_floating_point():
            targets = smooth(as_probabilities(targets, self.model.config.num_labels), share)
        first = next(iter(inputs.values()), None)
        alone = len(inputs) == 1 and isinstance(first, Tensor) and first.is_floating_point()
        return (first if alone else inputs), targets

    def _prepare(self) -> TrainingMethod:
        """Return the method with the model that there is now; ``model_init`` makes a new one for each training."""
        if self._training is None or self._trained is not self.model:
            self._training = TrainingMethod(self._given, adapt(self.model, **self._split))
            self._trained = self.model
            self._training.start(self.args.seed, self.args.device)
        return self._training


class _Follow(hf.TrainerCallback):
    """Lets the method follow the optimiser; its state is written beside checkpoints and read from there."""

    def __init__(self, trainer: MultiMixTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        training = self.trainer._prepare()
        if (folder := self.trainer._checkpoint) is not None:
            if not (folder / STATE_FILE).is_file():
                raise FileNotFoundError(f"there is no {STATE_FILE} in {folder}: MultiMixTrainer did not write it")
            training.load_state_dict(torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True))
            self.trainer._checkpoint = None
        training.start(args.seed, args.device)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._prepare().after_step()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            torch.save(self.trainer._prepare().state_dict(), folder / STATE_FILE)
