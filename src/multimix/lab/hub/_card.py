"""Model cards: what a network is, what was measured of it, and how to use it."""

import math
from collections.abc import Mapping
from typing import Any

import jinja2

from multimix.lab.about import SUITES, metrics_of

Record = dict[str, Any]


def records_of(record: Any) -> list[Record]:
    """Return one or several records as a list; those of the form (metric, value) by the metric's name."""
    if record is None:
        return []
    several = [record] if isinstance(record, Mapping) else record
    if not isinstance(several, list | tuple) or not all(isinstance(item, Mapping) for item in several):
        raise TypeError(f"record must be a mapping or a list of them, got {type(record).__name__}")
    found = []
    for item in map(dict, several):
        if "metric" in item and "value" in item:
            item = {str(item.pop("metric")): item.pop("value"), **item}
        found.append(item)
        if not metrics_of(item):
            raise ValueError(f"record must hold a metric such as accuracy, got only {', '.join(item) or 'nothing'}")
        for name, value in metrics_of(item).items():
            if not math.isfinite(value):
                raise ValueError(f"record must hold finite numbers, got {name} = {value}")
    return found


_SHOWN = ("seed", "n", "examples", "epoch", "device", "torch", "commit", "date")
"""What a measurement depends on: a column of the card for each."""
_PERCENT = {metric.name for suite in SUITES.values() for metric in suite.metrics if metric.unit == "%"}
_TEMPLATE = """\
---
library_name: multimix
pipeline_tag: image-classification
tags: [multimix, mixup, pytorch, image-classification]
{% if measured %}
model-index:
- name: {{ name | tojson }}
  results:
{% for metric, value, record, about in measured %}
  - task: {type: image-classification}
    dataset:
      name: {{ data | tojson }}
      type: {{ data | tojson }}
      split: {{ record.split | default("test") | tojson }}
    metrics: [{type: {{ metric | tojson }}, value: {{ value | tojson }}}]
{% endfor %}
{% endif %}
---

# {{ name | cell }}

Weights of a network trained with MultiMix, a library of mixup methods for PyTorch.

| | |
| :--- | :--- |
{% for key, value in rows.items() if value is not none %}
| {{ key }} | {{ value | cell }} |
{% endfor %}

## Measured

{% if measured %}
| Metric | Value | {{ shown | join(" | ") }} |
| :--- | ---: |{{ " :--- |" * shown | length }}
{% for metric, value, record, about in measured %}
| {{ metric | cell }} | {{ value | number(metric) }} | {{ about | join(" | ") }} |
{% endfor %}
{% else %}
No record of a measurement came with these weights, so there are no numbers here.
{% endif %}

## Use

```python
{% if facts %}
import multimix as mm
from PIL import Image

model = mm.load("{{ place }}"){{ "" if place != "." else "  # this folder, or owner/name on the hub" }}
image = Image.new("RGB", ({{ facts.shape[2] }}, {{ facts.shape[1] }}), "white")  # or the path of a photo
print(model.predict([image])[0])  # class and probability, after the preprocessing that the network was trained with
tensor = model.transform(image)  # what goes into model.network, whose logits are in the order of model.classes
{% else %}
from multimix.integrations import load_pretrained
{% if network %}

net = ...  # the same network, with any weights
{% endif %}
network, _ = load_pretrained("{{ place }}"{{ ", network=net" if network }})
logits = network(images)
{% endif %}
```
{% if facts %}

Images are brought to {{ "grey" if facts.shape[0] == 1 else "RGB" }}; the shorter side is scaled to
{{ (facts.shape[1] * facts.ratio) | round | int }} pixels (bilinear, antialiased), and the centre of
{{ facts.shape[1] }} x {{ facts.shape[2] }} is cut out.
{% endif %}

The weights are in safetensors; nothing in this repository is a pickle or is run when they are loaded.
"""


def card_of(name: str, records: list[Record], *, data: str | None, **fields: Any) -> str:
    """Return the text of a README.md, after metadata for the hub, of which JSON's texts are YAML's, too."""
    measured = []
    for record in records:
        known = {"n": 1 if "seed" in record else None, "epoch": record.get("epochs"), **record}
        about = ["not recorded" if known.get(name) is None else _cell(known[name]) for name in _SHOWN]
        measured += [(metric, value, record, about) for metric, value in metrics_of(record).items()]
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"cell": _cell, "number": _number}
    fields |= {"measured": measured, "shown": _SHOWN, "data": data or "unknown"}
    return environment.from_string(_TEMPLATE).render(name=name, **fields)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _number(value: float, metric: str) -> str:
    percent = metric.rpartition("/")[2] in _PERCENT and 0 <= value <= 1
    return f"{100 * value:.2f} %" if percent else f"{value:.4g}"
