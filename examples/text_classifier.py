"""Text: a small transformer of Hugging Face's, trained from scratch to say which Python module a docstring is from."""

import importlib
import inspect
import re

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

import multimix as mm

MODULES = ("statistics", "socket", "tarfile", "decimal", "unittest.mock", "logging")
LENGTH, EPOCHS = 32, 14


def docstrings() -> tuple[list[list[str]], list[int]]:
    """Return the words of every paragraph of documentation in some of Python's own modules, and which module it is."""
    texts: dict[str, int] = {}
    for label, name in enumerate(MODULES):
        module = importlib.import_module(name)
        owners = [module, *(value for _, value in inspect.getmembers(module, inspect.isclass))]
        found = [value for owner in owners for _, value in inspect.getmembers(owner)]
        for thing in (*owners, *found):
            if getattr(thing, "__module__", name) not in (name, name.partition(".")[0]) or isinstance(thing, str):
                continue
            for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
                if len(paragraph) > 60:
                    texts.setdefault(paragraph, label)
    return [re.findall(r"[a-z]+", text.lower())[:LENGTH] for text in texts], list(texts.values())


def batch_of(words: list[list[str]], known: dict[str, int]) -> dict[str, Tensor]:
    """Return padded indices and their mask: 0 pads, 1 begins, 2 is a word that is not known."""
    rows = [[1, *(known.get(word, 2) for word in text)] for text in words]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def train(method: mm.Method, words: list[list[str]], labels: Tensor, known: dict[str, int]) -> torch.nn.Module:
    """Return a model, trained with a method."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(known) + 3,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        num_labels=len(MODULES),
    )
    model = BertForSequenceClassification(config)
    net = mm.adapt(model)  # its inputs are a mapping; padding is known from attention_mask
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(words), generator=generator).split(32):
            inputs = batch_of([words[i] for i in batch], known)
            method(net, inputs, labels[batch], generator=generator).total.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def main() -> None:
    """Train on half of the paragraphs, test on the others."""
    words, modules = docstrings()
    labels = torch.tensor(modules)
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(0)).tolist()
    half = len(order) // 2
    train_words, test_words = [words[i] for i in order[:half]], [words[i] for i in order[half:]]
    known = {word: i + 3 for i, word in enumerate(sorted({word for text in train_words for word in text}))}
    for method in (mm.ERM(), mm.MultiMix(), mm.DenseMultiMix(tuples=200)):
        model = train(method, train_words, labels[order[:half]], known)
        with torch.no_grad():
            predicted = model(**batch_of(test_words, known)).logits.argmax(1)
        accuracy = (predicted == labels[order[half:]]).float().mean()
        print(f"{method.name:16} test accuracy {accuracy:6.1%} (one seed, {len(test_words)} paragraphs)")


if __name__ == "__main__":
    main()
