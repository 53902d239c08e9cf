"""MultiMix as scikit-learn estimators, for tables of numbers."""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from typing_extensions import Self

from multimix._declared import Count, Ge, Interval, Positive, check, check_fields
from multimix._modules import copied, evaluating
from multimix._optional import require
from multimix.integrations._training import MethodLike, TrainingMethod, as_method, cosine_schedule
from multimix.methods import ERM
from multimix.models import adapt
from multimix.ops import BinaryCrossEntropy, CrossEntropy, Objective, SampleWeighted, SquaredError, objective_of
from multimix.protocols import Network

require("sklearn", by=__name__)

from scipy.sparse import issparse  # noqa: E402  (after the clear error, as all that follow)
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    _check_sample_weight,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from multimix.integrations import _tables  # noqa: E402

_FAR = 1e6
"""Standard deviations beyond which a number is taken for this one, so that float32 holds its square."""


@dataclass(eq=False, repr=False)
class _Estimator(BaseEstimator):
    """What classifier and regressor share: settings, scaling, one loop, and predictions."""

    hidden: tuple[Count, ...] = (256, 256)
    _: KW_ONLY
    method: MethodLike = None
    network: Callable[[int, int], nn.Module] | None = None
    epochs: Count = 50
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.01
    validation: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    patience: Count = 10
    random_state: Any = None
    device: Any = "auto"
    verbose: Any = 0

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 (scikit-learn's own signature)
        """Return the settings by name and, if ``deep``, those of the method as ``method__name``."""
        params = super().get_params(deep)
        try:
            method = as_method(self.method) if deep else None
        except (TypeError, ValueError):  # for fit to refuse
            method = None
        return params | {f"method__{name}": value for name, value in _tables.settings_of(method).items()}

    def set_params(self, **params: Any) -> Self:
        """Change settings, also those of the method, ``method__name``: that it is then another method.

        Raises:
            ValueError: If there is no such setting, or the method cannot have its value.
        """
        inner = {name: value for name, value in params.items() if name.startswith("method__")}
        super().set_params(**{name: value for name, value in params.items() if name not in inner})
        if inner:
            inner = {name.removeprefix("method__"): value for name, value in inner.items()}
            self.method = _tables.with_settings(as_method(self.method), inner)
        return self

    def _counted(self, x: NDArray, y: Any, sample_weight: ArrayLike | None) -> tuple[NDArray, NDArray, Any]:
        """Return the rows that count with their targets, and how much, (n,); None where all count alike."""
        y = y.toarray() if issparse(y) else y
        if sample_weight is None:
            return x, y, None
        weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        counts = weights > 0
        x, y, weights = x[counts], y[counts], weights[counts] / weights.max()
        return x, y, None if np.ptp(weights) == 0 else weights

    def _train(self, x: NDArray, targets: Tensor, outputs: int, default: Objective, weights: NDArray | None) -> None:
        """Learn targets, class indices (n,) or values (n, k), from rows that have been checked."""
        check_fields(copy.copy(self))  # a copy, as a list of widths would become a tuple
        device = self._device()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.scaler_ = _tables.standardiser("X", x, weights)
        rows = self._rows(x)
        # Initial weights and dropout know no other randomness than the global one, which is the caller's.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            network: Any = self._network(rows[: self.batch_size].to(device), outputs)
            network.objective = objective = _tables.suited(objective_of(network), default)
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).numpy()
            held = np.isin(np.arange(len(rows)), self._held_out(order, targets.numpy()))
            if self.validation and held.all() == held.any():
                raise ValueError(f"validation={self.validation} of {len(rows)} samples leaves none on one side")
            if weights is not None:
                amounts = torch.from_numpy(weights.astype(np.float32))
                network.objective = SampleWeighted(objective)
                targets = network.objective.join(targets, amounts, outputs)
            _tables.require_variance(network, len(rows) - held.sum(), self.batch_size)
            training = TrainingMethod(_tables.as_new(self.method), network)
            training.start(seed, device)
            held_out, trained_on = ((rows[part].to(device), targets[part].to(device)) for part in (held, ~held))
            self.loss_curve_ = list(self._epochs(training, *trained_on, held_out))
        network.objective = objective
        self.network_ = network.cpu().eval()
        self.n_epochs_ = len(self.loss_curve_)

    def _epochs(
        self, training: TrainingMethod, rows: Tensor, targets: Tensor, held_out: tuple[Tensor, Tensor]
    ) -> Iterator[float]:
        """Train, and yield the mean loss of every epoch; the best weights stay if rows are held out."""
        network, weighted = training.network, isinstance(training.network.objective, SampleWeighted)
        trained = [p for p in (*network.parameters(), *training.parameters()) if p.requires_grad]
        spared = {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}  # biases and normalisation
        groups = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay}, spared]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.learning_rate)
        steps = self.epochs * math.ceil(len(rows) / self.batch_size)
        schedule = cosine_schedule(optimizer, steps)
        best, best_weights, waited, judged = math.inf, None, 0, None
        for epoch in range(self.epochs):
            network.train()
            total = torch.zeros((), device=rows.device)
            order = torch.randperm(len(rows), generator=training.generator, device=rows.device)
            for batch in order.split(self.batch_size):
                training.progress(schedule.last_epoch, steps)
                loss = training(rows[batch], targets[batch]).total
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                training.after_step()
                total += loss.detach() * (targets[batch, 0].sum() if weighted else len(batch))
            mean = float(total / targets[:, 0].sum()) if weighted else float(total) / len(rows)
            if len(held_out[0]):
                with torch.no_grad():
                    judged = float(ERM()(network.eval(), *held_out).total)
                waited += 1
                if judged < best:
                    best, best_weights, waited = judged, copy.deepcopy(network.state_dict()), 0
            if self.verbose:
                beside = "" if judged is None else f", held out {judged:.4f}"
                sys.stdout.write(f"epoch {epoch + 1} of {self.epochs}: loss {mean:.4f}{beside}\n")
            if not math.isfinite(mean + (judged or 0.0)):
                found = f"the loss is {mean}" + ("" if judged is None else f", {judged} of held-out examples")
                raise ValueError(
                    f"training diverged in epoch {epoch + 1}, {found}; lower learning_rate, now {self.learning_rate}"
                )
            yield mean
            if waited >= self.patience:
                break
        if best_weights is not None:
            network.load_state_dict(best_weights)

    def _held_out(self, order: NDArray, targets: NDArray) -> NDArray:
        """Return the rows to hold out, of rows in a random order."""
        return order[: round(self.validation * len(order))]

    def _network(self, rows: Tensor, outputs: int) -> Network:
        """Return a new network on the device of some rows, which it has been tried on."""
        if self.network is None:
            return cast("Any", _tables.perceptron(rows.shape[1], outputs, self.hidden)).to(rows.device)
        if isinstance(self.network, nn.Module) or not callable(self.network):
            kind = type(self.network).__name__
            raise TypeError(f"network must be a function (features, outputs) -> torch.nn.Module, got {kind}")
        module = self.network(rows.shape[1], outputs)
        if not isinstance(module, nn.Module):
            raise TypeError(f"network must return a torch.nn.Module, got {type(module).__name__}")
        network = adapt(module).to(rows.device)
        devices = [rows.device] if rows.is_cuda else []
        with torch.random.fork_rng(devices), evaluating(network), torch.no_grad():
            try:
                found = tuple(network(rows).shape)
            except RuntimeError as error:
                raise ValueError(f"network must take rows {tuple(rows.shape)} in float32: {error}") from error
        if found != (len(rows), outputs):
            raise ValueError(f"network must return {outputs} outputs a row, {(len(rows), outputs)}, got {found}")
        _tables.require_new(module)
        return network

    def _rows(self, x: NDArray) -> Tensor:
        return torch.from_numpy(np.clip(self.scaler_.transform(x), -_FAR, _FAR).astype(np.float32))

    def _outputs(self, x: ArrayLike) -> NDArray:
        """Return the network's outputs (n, k) in float64, for rows as the user gives them."""
        check_is_fitted(self)
        rows = self._rows(validate_data(self, x, reset=False, dtype=np.float64))
        # In double precision, so that an answer does not depend on which other rows are asked about; on the CPU, since
        # not every device has it.
        network = copied(self.network_).double()
        with torch.inference_mode():
            batches = [network(batch.double()) for batch in rows.split(4096)]
        return torch.cat(batches).numpy()

    def _device(self) -> torch.device:
        there = torch.cuda.is_available()
        if self.device == "auto":
            return torch.device("cuda" if there else "cpu")
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device must be 'auto' or a torch device such as 'cpu', got {self.device!r}") from error
        if device.type == "cuda" and not there:
            raise ValueError(f"device {self.device!r} is not there: torch sees no CUDA device")
        return device


@dataclass(eq=False, repr=False)
class MultiMixClassifier(ClassifierMixin, _Estimator):
    """A multi-layer perceptron for tables, trained with MultiMix or any other method.

    Columns are standardised inside. Same data and ``random_state``, same classifier; torch's global random state is
    left as it was. The targets are classes, or labels of which any number may hold, a column of 0 and 1 each.

    Args:
        hidden: Widths of the hidden layers; none for a linear classifier.
        method: A method, the name of one (``multimix.names.METHOD_NAMES``), or None for ``MultiMix()``. Its settings
            count, which are parameters of the estimator, too (``method__tuples``), and nothing that it has learned.
        network: In place of the perceptron, a function (features, classes) -> torch.nn.Module that returns what
            ``multimix.adapt`` returned or takes, a new one at each call. Its objective counts, if it has one.
        epochs: Passes over the data.
        batch_size: Examples that are mixed with each other.
        learning_rate: Peak learning rate of AdamW, which falls to 0 along half a cosine.
        weight_decay: AdamW's, of matrices.
        validation: Share of the examples held out to stop early by, 0 for none: of each class its share, but never all
            of it; of several labels at random, but never the only examples that have, or lack, one of them.
        patience: Epochs without a better held-out loss after which training stops.
        random_state: Seed, numpy RandomState, or None.
        device: Where to train: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Predictions are computed on the CPU.
        verbose: 1 for a line an epoch.
        class_weight: How much each class counts, {class: weight}, 1 where it is left out; "balanced" lets all classes
            count alike. It is multiplied with ``sample_weight``, and not for several labels.

    Attributes:
        classes_: The classes, in the order of ``predict_proba``'s columns; of several labels 0 and 1 for each, (k, 2).
        network_: The trained network, on the CPU.
        scaler_: What standardises the columns.
        loss_curve_: Mean training loss of every epoch.
        n_epochs_: How many there were.
    """

    _: KW_ONLY
    class_weight: Any = None

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows (n, d) and their classes (n,), or labels (n, k) of which any number may hold.

        ``sample_weight`` (n,) says how much each row counts, in standardising, in the loss and in the held-out one. A
        row of weight 0 is as good as not there. If fitting fails, the estimator is left as it was.

        Raises:
            ValueError: If data or settings cannot be used, or there is a single class.
            TypeError: If a setting is of another kind.
        """
        with _tables.all_or_nothing(self):
            _tables.require_values(y)
            shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
            several = len(shape) == 2 and shape[1] > 1
            x, y = validate_data(self, X, y, dtype=np.float64, multi_output=several)
            if not several:
                try:
                    check_classification_targets(y)
                except TypeError as error:  # of kinds that have no order
                    kinds = ", ".join(sorted({type(label).__name__ for label in np.ravel(y)}))
                    raise ValueError(f"y must hold classes of one kind, got {kinds}") from error
                y = column_or_1d(y, warn=True)
            x, y, weights = self._counted(x, y, sample_weight)
            targets, default = self._labels(y) if several else self._classes(y, weights)
            self._train(x, torch.from_numpy(targets.astype(np.int64)), len(self.classes_), default, weights)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray:
        """Return the probability of every class, (n, k), in the order of ``classes_``; of every label, (n, k)."""
        outputs = torch.from_numpy(self._outputs(X))
        return (outputs.softmax(-1) if self._labels_dtype is None else outputs.sigmoid()).numpy()

    def predict(self, X: ArrayLike) -> NDArray:
        """Return the most probable class of every row, (n,); which labels rather hold than not, (n, k)."""
        outputs = self._outputs(X)
        if self._labels_dtype is not None:
            return (outputs > 0).astype(self._labels_dtype)
        return self.classes_[outputs.argmax(-1)]

    def __sklearn_tags__(self) -> Any:
        """Say that there may be several labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _classes(self, y: NDArray, weights: NDArray | None) -> tuple[NDArray, Objective]:
        """Return the index of each row's class, and what classes are trained for."""
        self._labels_dtype: np.dtype | None = None
        self.classes_: Any
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least 2 classes, got 1 class: {self.classes_[0]}")
        return indices, CrossEntropy(class_weights=self._class_weights(indices, weights))

    def _labels(self, y: NDArray) -> tuple[NDArray, Objective]:
        """Return which labels each row has, and what they are trained for."""
        if y.dtype.kind in "SU" or not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"y must hold 0 and 1 only where it has several columns, one a label, got {y[:3].tolist()}"
            )
        if self.class_weight is not None:
            raise ValueError(
                f"class_weight must be None where y has several labels, got {self.class_weight!r}; give sample_weight,"
                " or a network adapted with objective=BinaryCrossEntropy(positive_weights=...)"
            )
        self._labels_dtype = y.dtype if y.dtype.kind in "biuf" else np.dtype(np.int64)
        self.classes_ = np.tile([0, 1], (y.shape[1], 1))
        return y, BinaryCrossEntropy()

    def _class_weights(self, indices: NDArray, weights: NDArray | None) -> tuple[float, ...] | None:
        """Return how much each class counts, 1 at most; None if all count alike."""
        given, names = self.class_weight, self.classes_.tolist()
        if given is None:
            return None
        if isinstance(given, dict):
            unused = [name for name in given if name not in names]
            if unused and not given.keys() >= set(names):
                raise ValueError(f"class_weight must be of classes of y, {names}, got {unused}")
            amounts = tuple(given.get(name, 1.0) for name in names)
        elif isinstance(given, str) and given == "balanced":
            amounts = tuple((1 / np.bincount(indices, weights)).tolist())
        else:
            raise ValueError(f"class_weight must be None, 'balanced' or a dict of classes, got {given!r}")
        for name, amount in zip(names, amounts, strict=True):
            check(Positive, **{f"class_weight[{name!r}]": amount})
        return None if min(amounts) == max(amounts) else tuple(amount / max(amounts) for amount in amounts)

    def _held_out(self, order: NDArray, targets: NDArray) -> NDArray:
        return (_tables.by_class if targets.ndim == 1 else _tables.by_label)(order, self.validation, targets)


class MultiMixRegressor(RegressorMixin, _Estimator):
    """A multi-layer perceptron for tables of which the targets are values, mixed like the inputs; squared error.

    Settings are those of :class:`MultiMixClassifier`; columns of ``X`` and ``y`` are standardised inside. A method that
    has no meaning but for classes says so.

    Attributes:
        network_: The trained network, on the CPU.
        scaler_: What standardises the columns of ``X``.
        y_scaler_: What standardises the targets.
        loss_curve_: Mean training loss of every epoch, for standardised targets.
        n_epochs_: How many there were.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows (n, d) and their values, (n,) or (n, k).

        ``sample_weight`` (n,) says how much each row counts, in standardising ``X`` and ``y``, in the loss and in the
        held-out one. A row of weight 0 is as good as not there. If fitting fails, the estimator is left as it was.

        Raises:
            ValueError: If data or settings cannot be used.
            TypeError: If a setting is of another kind.
        """
        with _tables.all_or_nothing(self):
            _tables.require_values(y)
            x, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
            x, y, weights = self._counted(x, y, sample_weight)
            self._single_ = y.ndim == 1
            try:
                values = y.astype(np.float64).reshape(len(y), -1)
            except ValueError as error:
                raise ValueError(f"y must hold numbers: {error}") from error
            self.y_scaler_ = _tables.standardiser("y", values, weights)
            targets = torch.from_numpy(self.y_scaler_.transform(values).astype(np.float32))
            self._train(x, targets, values.shape[1], SquaredError(), weights)
        return self

    def predict(self, X: ArrayLike) -> NDArray:
        """Return the value of every row, in the shape of ``y``."""
        outputs = self._outputs(X)
        values = self.y_scaler_.inverse_transform(outputs)
        return values[:, 0] if self._single_ else values

    def __sklearn_tags__(self) -> Any:
        """Say that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
