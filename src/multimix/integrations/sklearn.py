"""MultiMix as scikit-learn estimators, for tables of numbers."""

import copy
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from typing_extensions import Self

from multimix._declared import Count, Ge, Interval, Positive, check_fields
from multimix._optional import require
from multimix.integrations._training import MethodLike, TrainingMethod, cosine_schedule
from multimix.models import adapt
from multimix.ops import SquaredError
from multimix.protocols import Network

require("sklearn", by=__name__)

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402  (after the clear error)
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data  # noqa: E402

_FAR = 1e6
"""Standard deviations beyond which a number is taken for this one, so that float32 holds its square."""


def perceptron(features: int, outputs: int, hidden: Sequence[int]) -> Network:
    """Return a multi-layer perceptron that can be mixed after every layer; none looks across the mini-batch."""
    layers = [nn.Sequential(nn.Linear(i, o), nn.LayerNorm(o), nn.GELU()) for i, o in pairwise((features, *hidden))]
    head = nn.Linear(hidden[-1] if hidden else features, outputs)
    model = nn.Sequential(OrderedDict(encoder=nn.Sequential(*layers), head=head))
    return adapt(model, encoder="encoder", head="head", stages=[f"encoder.{i}" for i in range(len(layers))])


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

    _loss: ClassVar[Any]  # a function of outputs and targets, for held-out rows

    def _train(self, x: NDArray, targets: Tensor, outputs: int) -> None:
        """Learn targets, class indices (n,) or values (n, k), from rows that have been checked."""
        check_fields(copy.copy(self))  # a copy, as a list of widths would become a tuple
        device = self._device()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.scaler_ = StandardScaler().fit(x)
        rows = self._rows(x)
        # Initial weights and dropout know no other randomness than the global one, which is the caller's.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            network: Any = self._network(x.shape[1], outputs)
            network.to(device)
            training = TrainingMethod(self.method, network)
            training.start(seed, device)
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
            held = round(self.validation * len(rows))
            out, kept = (part.sort().values for part in (order[:held], order[held:]))
            if self.validation and not (held and len(kept)):
                raise ValueError(f"validation={self.validation} of {len(rows)} samples leaves none on one side")
            held_out, trained_on = ((rows[part].to(device), targets[part].to(device)) for part in (out, kept))
            self.loss_curve_ = list(self._epochs(training, *trained_on, held_out))
        self.network_ = network.cpu().eval()
        self.n_epochs_ = len(self.loss_curve_)

    def _epochs(
        self, training: TrainingMethod, rows: Tensor, targets: Tensor, held_out: tuple[Tensor, Tensor]
    ) -> Iterator[float]:
        """Train, and yield the mean loss of every epoch; the best weights stay if rows are held out."""
        network = training.network
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
                total += loss.detach() * len(batch)
            mean = float(total) / len(rows)
            if len(held_out[0]):
                with torch.no_grad():
                    judged = float(self._loss(network.eval()(held_out[0]), held_out[1]))
                waited += 1
                if judged < best:
                    best, best_weights, waited = judged, copy.deepcopy(network.state_dict()), 0
            if self.verbose:
                beside = "" if judged is None else f", held out {judged:.4f}"
                sys.stdout.write(f"epoch {epoch + 1} of {self.epochs}: loss {mean:.4f}{beside}\n")
            yield mean
            if waited >= self.patience:
                break
        if best_weights is not None:
            network.load_state_dict(best_weights)

    def _network(self, features: int, outputs: int) -> Network:
        if self.network is None:
            return perceptron(features, outputs, self.hidden)
        module = self.network(features, outputs)
        if not isinstance(module, nn.Module):
            raise TypeError(f"network must return a torch.nn.Module, got {type(module).__name__}")
        return adapt(module)

    def _rows(self, x: NDArray) -> Tensor:
        return torch.from_numpy(np.clip(self.scaler_.transform(x), -_FAR, _FAR).astype(np.float32))

    def _outputs(self, x: ArrayLike) -> NDArray:
        """Return the network's outputs (n, k) in float64, for rows as the user gives them."""
        check_is_fitted(self)
        rows = self._rows(validate_data(self, x, reset=False, dtype=np.float64))
        # In double precision, so that an answer does not depend on which other rows are asked about; on the CPU, since
        # not every device has it.
        network = copy.deepcopy(self.network_).double()
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


class MultiMixClassifier(ClassifierMixin, _Estimator):
    """A multi-layer perceptron for tables, trained with MultiMix or any other method.

    Columns are standardised inside. Same data and ``random_state``, same classifier; torch's global random state is
    left as it was.

    Args:
        hidden: Widths of the hidden layers; none for a linear classifier.
        method: A method, the name of one (``multimix.names.METHOD_NAMES``), or None for ``MultiMix()``.
        network: In place of the perceptron, a function (features, classes) -> torch.nn.Module that returns what
            ``multimix.adapt`` returned or takes.
        epochs: Passes over the data.
        batch_size: Examples that are mixed with each other.
        learning_rate: Peak learning rate of AdamW, which falls to 0 along half a cosine.
        weight_decay: AdamW's, of matrices.
        validation: Share of the examples held out to stop early by, 0 for none.
        patience: Epochs without a better held-out loss after which training stops.
        random_state: Seed, numpy RandomState, or None.
        device: Where to train: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Predictions are computed on the CPU.
        verbose: 1 for a line an epoch.

    Attributes:
        classes_: The classes, in the order of ``predict_proba``'s columns.
        network_: The trained network, on the CPU.
        scaler_: What standardises the columns.
        loss_curve_: Mean training loss of every epoch.
        n_epochs_: How many there were.
    """

    _loss = staticmethod(nn.functional.cross_entropy)

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on rows (n, d) and their classes (n,).

        Raises:
            ValueError: If data or settings cannot be used, or there is a single class.
            TypeError: If a setting is of another kind.
        """
        x, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, indices = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least 2 classes, got 1 class: {self.classes_[0]}")
        self._train(x, torch.from_numpy(indices.astype(np.int64)), len(self.classes_))
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray:
        """Return the probability of every class, (n, k), in the order of ``classes_``."""
        return torch.from_numpy(self._outputs(X)).softmax(-1).numpy()

    def predict(self, X: ArrayLike) -> NDArray:
        """Return the most probable class of every row, (n,)."""
        best = self._outputs(X).argmax(-1)  # before anything else, as it knows whether there has been a fit
        return self.classes_[best]


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

    _loss = staticmethod(nn.functional.mse_loss)

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on rows (n, d) and their values, (n,) or (n, k).

        Raises:
            ValueError: If data or settings cannot be used.
            TypeError: If a setting is of another kind.
        """
        x, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        values = np.asarray(y, dtype=np.float64)
        self._single_ = values.ndim == 1
        values = values.reshape(len(values), -1)
        self.y_scaler_ = StandardScaler().fit(values)
        self._train(x, torch.from_numpy(self.y_scaler_.transform(values).astype(np.float32)), values.shape[1])
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

    def _network(self, features: int, outputs: int) -> Network:
        network = super()._network(features, outputs)
        network.objective = SquaredError()  # type: ignore[attr-defined]  # an attribute that methods look for
        return network
