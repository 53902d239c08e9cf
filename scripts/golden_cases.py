"""The cases of ``golden.py`` that call methods, networks and pure functions in this process."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from golden_record import Golden
from torch import Tensor, nn

import multimix as mm

CLASSES, B = 5, 8
RANGES = [{"effective": 3.0}, {"effective": (1.5, 4.0)}, {"alpha": 1.0}, {"alpha": (0.5, 2.0)}]
TUPLES = [
    *RANGES,
    *({"impl": impl, "balanced": balanced} for impl in ("plain", "commuted", "fused") for balanced in (False, True)),
    {"effective": (1.5, 4.0), "spread": "log-uniform"},
    {"balanced": True, "balance_power": 0.5},
    {"clean": 0.5, "confidence": 0.9, "balanced": True},
    {"clean": 0.5},
    {"confidence": 0.9},
    {"tuples": 7, "tuple_length": 3},
]
PAIRS = [{"mode": "pair"}, {"mode": "elem"}, {"alpha": 0.3}]
STYLES = [{"prob": 1.0}, {"prob": 1.0, "learning_rate": 0.0}, {"prob": 1.0, "warmup": 0, "size": 8}]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "mixup": PAIRS,
    "cutmix": [*PAIRS, {"prob": 0.5}],
    "resizemix": [{"interpolation": "bilinear"}, {"scales": (0.3, 0.6)}],
    "fmix": [{"alpha": 0.4, "decay": 2.0}],
    "zeta-mixup": [{"gamma": 4.0}],
    "manifold-mixup": [{"stages": (0,)}, {"stages": (1,)}, {"alpha": 0.4}],
    "multimix": TUPLES,
    "dense-multimix": [
        *TUPLES,
        *({"query": query, "activation": form} for query in ("gap", "cam", "uniform") for form in ("relu", "softmax")),
        {"shared": True},
        {"shared": True, "detach": False, "query": "cam"},
        {"detach": False},
    ],
    "saliencymix": [{"levels": (0.2, 0.8)}, {"prob": 0.5}],
    "puzzlemix": [{"adversarial": 0.5}, {"clean": 0.5}, {"transport": False}, {"labels": 2}, {"grids": (4,)}],
    "co-mixup": [{"settle": True}, {"clean": 0.0}, {"tau": 0.5}],
    "stylemix": STYLES,
    "stylecutmix": [*STYLES, {"prob": 1.0, "gamma": "auto"}, {"prob": 1.0, "gamma": 0.5}],
    "alignmix": [{"prob": 0.0}, {"prob": 1.0}],
    "opttransmix": [{"alpha": 0.4, "epsilon": 0.01}],
    "automix": [{"share": 1.0}, {"distance_weight": 0.0, "width": 4}],
    "supermix": [{"images": 3}, {"side": 4}],
    "adamixup": [{"held_out": 0.25}, {"width": 4}],
}


class Split(nn.Module):
    """A body, the mean over positions, and a head."""

    def __init__(self, body: nn.Module, head: nn.Module, *, pooled: bool = True) -> None:
        super().__init__()
        self.body, self.out, self.pooled = body, head, pooled

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        maps = self.body(inputs)
        return self.out(maps.mean((2, 3)) if self.pooled else maps)


class Words(nn.Module):
    """An LSTM over tokens, and the mean over those that are real."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm, self.out = nn.Embedding(20, 6), nn.LSTM(6, 7, batch_first=True), nn.Linear(7, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits."""
        there = ((input_ids != 0) if attention_mask is None else attention_mask).unsqueeze(-1)
        return self.out((self.lstm(self.table(input_ids))[0] * there).sum(1) / there.sum(1))


def body(norm: bool = True) -> nn.Sequential:  # noqa: FBT001, FBT002
    """Return two convolutions."""
    norms = [nn.BatchNorm2d(6), nn.BatchNorm2d(8)] if norm else [nn.Identity(), nn.Identity()]
    first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), norms[0], nn.Tanh())
    return nn.Sequential(first, nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), norms[1], nn.Tanh()))


NAMES = {"encoder": "body", "head": "out", "stages": ("body.0", "body.1")}


def convolutional() -> nn.Module:
    """Return the small network of most cases."""
    return Split(body(), nn.Linear(8, CLASSES))


def images(dtype: torch.dtype = torch.float32, size: int = 16) -> Tensor:
    """Return a mini-batch of images."""
    made = torch.randn(B, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return made.to(dtype)


def targets(kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return targets of a kind."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(CLASSES, (B,), generator=generator)
    noise = torch.randn(B, CLASSES, generator=generator, dtype=torch.float64)
    ignored = labels.clone()
    ignored[2] = 255
    kinds = {"hard": labels, "soft": (2 * noise).softmax(-1).to(dtype), "ignored": ignored}
    kinds |= {"labels": (noise > 0).to(dtype), "values": noise.to(dtype)}
    kinds["map"] = torch.randint(CLASSES, (B, 8, 8), generator=generator)
    return kinds[kind]


def steps(golden: Golden, name: str, model: nn.Module, make: Callable[[], Any], data: tuple, **given: Any) -> None:
    """Take two steps of a method on what ``adapt`` makes of a model, and keep all that they compute."""
    with golden.case(name):
        hooks, seed = given.pop("hooks", False), given.pop("seed", 0)
        network, method = mm.adapt(model.train(), **given), make()
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        if hooks:
            method.prepare(network)
        for step in (1, 2):
            if hooks:
                method.at(step / 2)
            losses = method(network, *data, generator=generator)
            losses.total.backward()
            golden.add(f"{name}/{step}/total", losses.total)
            for term, value in losses.terms.items():
                golden.add(f"{name}/{step}/term/{term}", value)
            learned = [*model.parameters(), *(method.parameters() if isinstance(method, nn.Module) else ())]
            learned = [p for p in {id(p): p for p in learned}.values() if p.grad is not None]
            golden.add(f"{name}/{step}/gradients", [p.grad for p in learned])
            with torch.no_grad():
                for p in learned:
                    p -= 0.1 * p.grad
                    p.grad = None
            if hooks:
                method.after_step(network)
        golden.add(f"{name}/weights", list(model.state_dict().values()))
        if generator is not None:
            golden.add(f"{name}/generator", generator.get_state())


def variants() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every method with its default settings, then with each of its options."""
    for cls in mm.methods.METHODS:
        for options in ({}, *OPTIONS.get(cls.name, [])):
            said = ",".join(f"{key}={value}" for key, value in options.items())
            yield f"{cls.name}({said})", lambda cls=cls, options=options: cls(**options)
    yield "multimix-recommended", mm.MultiMix.recommended


def distilled(make: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    """Return what makes a method taught by its own average."""
    return lambda: mm.SelfDistilled(make(), **{"momentum": 0.5, **options})


def combinations() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield methods made of methods."""
    published = (mm.MultiMix(alpha=(0.5, 2.0)), mm.Mixup(alpha=2.0))
    yield "alternate", lambda: mm.Alternate(published)
    yield "alternate-shares", lambda: mm.Alternate((*published, mm.CutMix()), (0.2, 0.2, 0.6))
    yield "alternate-distilled", distilled(lambda: mm.Alternate(published))
    yield "until", lambda: mm.Until(mm.Mixup(), 0.9)
    yield "until-then", lambda: mm.Until(mm.Mixup(), 0.0, mm.CutMix())
    for cls in mm.methods.METHODS:
        yield f"chain-{cls.name}-multimix", lambda cls=cls: mm.Chain(cls(), mm.MultiMix())
    for then in (mm.ERM, mm.Mixup, mm.DenseMultiMix, mm.ManifoldMixup, mm.AlignMix):
        yield f"chain-mixup-{then.name}", lambda then=then: mm.Chain(mm.Mixup(), then())
    yield "chain-distilled", distilled(lambda: mm.Chain(mm.CutMix(), mm.DenseMultiMix()))
    yield "average", distilled(mm.MultiMix, buffer_rule="average", warmup=False)
    yield "gamma", distilled(mm.DenseMultiMix, gamma=0.2)


def methods(golden: Golden) -> None:
    """Every method, its options, teachers and combinations, on the small network."""
    for name, make in (*variants(), *combinations()):
        for kind in ("hard", "soft"):
            for dtype in (torch.float32, torch.float64):
                case = f"method/{name}/{kind}/{str(dtype)[6:]}"
                torch.manual_seed(0)
                steps(golden, case, convolutional().to(dtype), make, (images(dtype), targets(kind, dtype)), **NAMES)
        torch.manual_seed(0)
        data = (images(), targets("hard"))
        steps(golden, f"method/{name}/no-generator", convolutional(), make, data, seed=None, **NAMES)
    data = (images(), targets("hard"))
    for name, make in variants():
        for reading in ("predict", "mix"):
            torch.manual_seed(0)
            taught = distilled(make, teacher=reading)
            steps(golden, f"distilled/{reading}/{name}", convolutional(), taught, data, **NAMES)
    two_views = ((images(), images().flip(3)), targets("hard"))
    for cls in mm.methods.METHODS:
        torch.manual_seed(0)
        case = f"distilled/views/{cls.name}"
        steps(golden, case, convolutional(), distilled(cls), two_views, hooks=True, **NAMES)


def objectives(golden: Golden) -> None:
    """Every method with every objective, and with a target at every position."""
    weights = (1.0, 0.5, 2.0, 0.0, 1.5)
    found: dict[str, tuple[Any, str]] = {
        "class-weights": (mm.CrossEntropy(class_weights=weights), "hard"),
        "class-weights-soft": (mm.CrossEntropy(class_weights=weights), "soft"),
        "smoothing": (mm.CrossEntropy(label_smoothing=0.1), "hard"),
        "ignored": (mm.CrossEntropy(ignore_index=255), "ignored"),
        "all-three": (mm.CrossEntropy(weights, 0.1, 255), "ignored"),
        "multi-label": (mm.BinaryCrossEntropy(), "labels"),
        "multi-label-weights": (mm.BinaryCrossEntropy(weights, 0.1), "labels"),
        "values": (mm.SquaredError(), "values"),
    }
    chosen: list[tuple[str, Callable[[], Any]]] = [(cls.name, cls) for cls in mm.methods.METHODS]
    chosen += [(f"clean-{cls.name}", lambda cls=cls: cls(clean=0.5)) for cls in (mm.MultiMix, mm.DenseMultiMix)]
    chosen += [("unbalanced", lambda: mm.MultiMix(balanced=False)), ("shared", lambda: mm.DenseMultiMix(shared=True))]
    chosen += [(f"distilled-{cls.name}", distilled(cls)) for cls in (mm.Mixup, mm.MultiMix, mm.DenseMultiMix)]
    chosen += [("distilled-mix", distilled(mm.MultiMix, teacher="mix"))]
    for name, make in chosen:
        for kind, (objective, form) in found.items():
            torch.manual_seed(0)
            case, data = f"objective/{kind}/{name}", (images(), targets(form))
            steps(golden, case, convolutional(), make, data, objective=objective, **NAMES)
        torch.manual_seed(0)
        model = Split(body(), nn.Conv2d(8, CLASSES, 1), pooled=False)
        data = (images(), targets("map"))
        steps(golden, f"objective/map/{name}", model, make, data, dense=True, encoder="body", head="out")


def models(golden: Golden) -> None:
    """Networks of every kind, with the methods that look at them differently."""
    import timm
    import torchvision
    import transformers as hf

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    bert = hf.BertConfig(vocab_size=20, max_position_embeddings=16, num_labels=CLASSES, **sizes)
    tokens = torch.randint(1, 20, (B, 7), generator=torch.Generator().manual_seed(5))
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 1, 7, 2, 6, 4]).unsqueeze(1)
    sentences = {"input_ids": tokens * mask, "attention_mask": mask.long()}
    vectors = images()[:, :, 0, :4].flatten(1)
    lstm = {"encoder": "lstm", "head": "out"}
    bent = nn.Sequential(nn.Tanh(), nn.Linear(8, CLASSES), nn.Tanh())
    build = mm.models.build
    found: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any]]] = {
        "preact": (lambda: build("preact_resnet18", num_classes=CLASSES, width=4), images(), {}),
        "wide": (lambda: build("wide_resnet16_8", num_classes=CLASSES, width=1), images(), {}),
        "timm-resnet": (lambda: timm.create_model("test_resnet", num_classes=CLASSES), images(size=32), {}),
        "timm-vit": (lambda: timm.create_model("test_vit", num_classes=CLASSES, img_size=32), images(size=32), {}),
        "resnet18": (lambda: torchvision.models.resnet18(num_classes=CLASSES), images(size=32), {}),
        "bert": (lambda: hf.BertForSequenceClassification(bert), sentences, {}),
        "bert-ids": (lambda: hf.BertForSequenceClassification(bert), {"input_ids": tokens}, {}),
        "lstm": (Words, sentences, {**lstm, "mask": "attention_mask"}),
        "lstm-function": (Words, sentences["input_ids"], {**lstm, "mask": lambda ids: ids != 0}),
        "traced": (convolutional, images(), {}),
        "no-norm": (lambda: Split(body(norm=False), nn.Linear(8, CLASSES)), images(), NAMES),
        "bent": (lambda: Split(body(), bent), images(), NAMES),
        "vectors": (lambda: nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, CLASSES)), vectors, {}),
    }
    chosen: list[tuple[str, Callable[[], Any]]] = [(cls.name, cls) for cls in mm.methods.METHODS]
    chosen += [("balanced", lambda: mm.MultiMix(balanced=True, clean=0.5))]
    chosen += [("cam", lambda: mm.DenseMultiMix(query="cam", balanced=True))]
    chosen += [("distilled-multimix", distilled(mm.MultiMix)), ("distilled-dense", distilled(mm.DenseMultiMix))]
    few = {"erm", "cutmix", "manifold-mixup", "multimix", "dense-multimix", "alignmix", "distilled-dense", "puzzlemix"}
    for kind, (make, inputs, names) in found.items():
        for name, method in chosen:
            if kind != "resnet18" or name in few:
                torch.manual_seed(0)
                steps(golden, f"model/{kind}/{name}", make(), method, (inputs, targets("hard")), **names)


def operations(golden: Golden) -> None:
    """The pure functions: random streams, attention and mixed losses."""
    ops, alphas = mm.ops, (0.1, 1.0, 30.0, (0.5, 2.0), torch.linspace(0.1, 2, 12))
    for i, alpha in enumerate(alphas):
        for m in (1, 2, 8, 40):
            for dtype in (None, torch.float64):
                with golden.case(name := f"ops/dirichlet/{i}/{m}/{dtype}"):
                    generator = torch.Generator().manual_seed(0)
                    golden.add(name, ops.dirichlet(12, m, alpha, generator=generator, dtype=dtype))
                    golden.add(f"{name}/generator", generator.get_state())
    for effective in (0.5, 1.0, 1.5, 2.0, 7.9, 8.0, 64.0):
        with golden.case(name := f"ops/alpha_for/{effective}"):
            golden.add(name, [ops.alpha_for(effective, m) for m in (8, 9, 128)])
    for dtype in (torch.float32, torch.float64):
        _attention(golden, dtype)
        _losses(golden, dtype)


def _attention(golden: Golden, dtype: torch.dtype) -> None:
    """Keep attention of every kind, and what is interpolated."""
    ops = mm.ops
    features = images(dtype)[:, :, :4, :3].flatten(2)
    for query in ("gap", "cam", "uniform"):
        for form in ("relu", "softmax"):
            with golden.case(name := f"ops/attention/{query}/{form}/{dtype}"):
                given = {"class_weights": features.mean(1)} if query == "cam" else {}
                found = ops.attention(features, query=query, activation=form, **given)
                masked = ops.attention(features, query=query, activation=form, mask=features[..., 0] > -1, **given)
                golden.add(name, [found, masked])
    with golden.case(name := f"ops/interpolate/{dtype}"):
        golden.add(name, ops.interpolate(ops.dirichlet(12, B, 1.0).to(dtype), images(dtype)))


def _losses(golden: Golden, dtype: torch.dtype) -> None:
    """Keep mixed losses in every form."""
    ops = mm.ops
    for kind in ("hard", "soft"):
        logits, labels = 3 * targets("values", dtype), targets(kind, dtype)
        maps = torch.stack([logits, logits.flip(1), logits.cos()], 1)
        with golden.case(name := f"ops/soft_cross_entropy/{kind}/{dtype}"):
            golden.add(name, ops.soft_cross_entropy(logits, labels))
        for impl in ("auto", "plain", "commuted", "fused"):
            for extra in ({}, {"gamma": 0.3}, {"balanced": True}, {"balanced": 0.5, "gamma": 0.3}, {"chunk": 5}):
                case = f"{impl}/{kind}/{dtype}/{extra}"
                options = {"impl": impl, **extra}
                _mixed(golden, f"ops/mixed/{case}", ops.mixed_cross_entropy, (logits, labels), options)
                dense = ops.dense_mixed_cross_entropy
                _mixed(golden, f"ops/dense/{case}", dense, (maps, labels), options)


def _mixed(golden: Golden, name: str, loss: Callable, data: tuple[Tensor, Tensor], options: dict[str, Any]) -> None:
    """Keep a mixed loss of logits and its gradient."""
    with golden.case(name):
        logits = data[0].clone().requires_grad_()
        weights = mm.ops.dirichlet(24, B, 0.5).to(logits.dtype)
        also = () if logits.ndim == 2 else ((logits.detach()[..., 0].exp() + 0.1),)
        taught = {"teacher_logits": logits.detach().flip(0)} if "gamma" in options else {}
        found = loss(logits, data[1], weights, *also, **taught, **options)
        found.backward()
        golden.add(name, [found, logits.grad])
