"""A model card made from records: what was measured, with what it depends on, and nothing else."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

_ABOUT = {
    "suite",
    "split",
    "epoch",
    "epochs",
    "event",
    "settings",
    "weights",
    "examples",
    "seed",
    "n",
    "device",
    "torch",
    "commit",
    "date",
    "label",
    "method",
    "data",
    "model",
    "config",
    "seconds",
    "network",
}
"""What a record says of a measurement; every other number in it is a metric."""
_SHOWN = ("seed", "n", "examples", "epoch", "device", "torch", "commit", "date")
_PERCENT = ("accuracy", "ece")


def normal_records(record: Any) -> list[dict[str, Any]]:
    """Return one or several records as a list; those of the form (metric, value) by the metric's name.

    Raises:
        TypeError: If there is anything else.
        ValueError: If a record has no metric, or one is not finite.
    """
    if record is None:
        return []
    several = [record] if isinstance(record, Mapping) else record
    if not isinstance(several, list | tuple) or not all(isinstance(item, Mapping) for item in several):
        raise TypeError(f"record must be a mapping or a list of them, got {type(record).__name__}")
    found = [_by_name(dict(item)) for item in several]
    for item in found:
        if not metrics_of(item):
            raise ValueError(f"record must hold a metric such as accuracy, got only {', '.join(item) or 'nothing'}")
        for name, value in metrics_of(item).items():
            if not math.isfinite(value):
                raise ValueError(f"record must hold finite numbers, got {name} = {value}")
    return found


def metrics_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a record by name."""
    return {
        name: value
        for name, value in record.items()
        if name not in _ABOUT and isinstance(value, int | float) and not isinstance(value, bool)
    }


def model_card(
    name: str, *, records: Iterable[Mapping[str, Any]], rows: Mapping[str, Any], usage: str, data: str | None
) -> str:
    """Return the text of a README.md.

    Args:
        name: Of the model.
        records: What was measured.
        rows: What else is known, by what to call it; those that are None are left out.
        usage: Lines of Python.
        data: Name of the data set, if it is known.
    """
    records = list(records)
    known = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items() if value is not None)
    parts = [
        f"---\n{_front(name, records, data)}---",
        f"# {_cell(name)}",
        "Weights of a network trained with MultiMix, a library of mixup methods for PyTorch.",
        f"| | |\n| :--- | :--- |\n{known}",
        "## Measured",
        _measured(records),
        "## Use",
        f"```python\n{usage}\n```",
        "The weights are in safetensors; nothing in this repository is a pickle or is run when they are loaded.",
    ]
    return "\n\n".join(parts) + "\n"


def _by_name(record: dict[str, Any]) -> dict[str, Any]:
    if "metric" not in record or "value" not in record:
        return record
    return {str(record.pop("metric")): record.pop("value"), **record}


def _front(name: str, records: list[Mapping[str, Any]], data: str | None) -> str:
    """Return the metadata that the hub reads; JSON's texts are YAML's, too."""
    tags = "\n".join(f"- {tag}" for tag in ("multimix", "mixup", "pytorch", "image-classification"))
    front = f"library_name: multimix\npipeline_tag: image-classification\ntags:\n{tags}\n"
    found = [(metric, value, record) for record in records for metric, value in metrics_of(record).items()]
    if not found:
        return front
    results = "".join(
        "  - task:\n      type: image-classification\n"
        f"    dataset:\n      name: {_text(data or 'unknown')}\n      type: {_text(data or 'unknown')}\n"
        f"      split: {_text(record.get('split', 'test'))}\n"
        f"    metrics:\n    - type: {_text(metric)}\n      value: {json.dumps(value)}\n"
        for metric, value, record in found
    )
    return f"{front}model-index:\n- name: {_text(name)}\n  results:\n{results}"


def _measured(records: list[Mapping[str, Any]]) -> str:
    if not records:
        return "No record of a measurement came with these weights, so there are no numbers here."
    head = f"| Metric | Value | {' | '.join(_SHOWN)} |\n| :--- | ---: |{' :--- |' * len(_SHOWN)}"
    lines = [
        f"| {_cell(metric)} | {_number(metric, value)} | {' | '.join(_cell(_shown(record, name)) for name in _SHOWN)} |"
        for record in records
        for metric, value in metrics_of(record).items()
    ]
    return "\n".join([head, *lines])


def _shown(record: Mapping[str, Any], name: str) -> Any:
    if name == "n" and "n" not in record:
        return 1 if "seed" in record else "not recorded"
    if name == "epoch" and "epoch" not in record:
        return record.get("epochs", "not recorded")
    value = record.get(name)
    return "not recorded" if value is None else value


def _number(metric: str, value: float) -> str:
    if metric.rpartition("/")[2] in _PERCENT and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    return f"{value:.4g}"


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _text(value: Any) -> str:
    return json.dumps(str(value))
