"""Lightning's trainer over the toy, by our module and by our callback around somebody's own."""

import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the host's own imports
    from lightning import pytorch as pl

    from multimix.integrations.lightning import MultiMixCallback, MultiMixModule

SPLIT = {"encoder": "body", "head": "out"}


class Recorder(pl.Callback):
    def __init__(self):
        self.losses, self.rates = [], []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


class Own(pl.LightningModule):
    """Somebody's module, which knows nothing of this library."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        return sgd(self.model.parameters())


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def loader(toy, data=None):
    return DataLoader(TensorDataset(toy.images, toy.labels) if data is None else data, batch_size=9)


def trainer_of(*callbacks, epochs=2, **options):
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", **{**off, **options})


def fit(module, data, *callbacks, ckpt_path=None, **options):
    recorder = Recorder()
    trainer = trainer_of(recorder, *callbacks, **options)
    trainer.fit(module, data, ckpt_path=ckpt_path)  # which reports losses divided by the batches that share a step
    return [loss * options.get("accumulate_grad_batches", 1) for loss in recorder.losses], trainer


def with_module(toy, method, *, data=None, objective=None, unpack=None, **options):
    given = {"objective": objective, "unpack": unpack, "seed": 3}
    return fit(MultiMixModule(toy.adapt(toy.model), method, optimizer=sgd, **given), loader(toy, data), **options)


def with_callback(toy, method, *, data=None, objective=None, unpack=None, **options):
    given = {"objective": objective, "unpack": unpack, "seed": 3}
    return fit(Own(toy.model), loader(toy, data), MultiMixCallback(method, **given, **SPLIT), **options)
