"""Train two tiny GPT-2s that differ in dropout alone, and save both at a dozen steps.

Figure 6 of the paper (Appendix E) compares two Pythia 160Ms, one of them trained with dropout in the residual stream:
its smallest singular values of W_U are lower, as if a null space had been made on purpose. Here is the same experiment
in small, on the packaged news text and one core of a CPU. Every checkpoint is a model folder of its own:

    python docs/training/train_dropout.py --out trained --seeds 0,1,2
    calibroscope checkpoints --model trained/dropout-0 --revisions all
    calibroscope checkpoints --model trained/plain-0 --revisions all

Both models of a seed begin with the same weights and read the same batches in the same order. What came out is told in
docs/training.md.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import platformdirs
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.utils import logging

from precompute.corpus import open_corpus

END = "<|endoftext|>"
VOCAB, LENGTH, BATCH = 2048, 64, 16
"""Tokens in the vocabulary, of a sequence, and sequences of a batch."""
D_MODEL, LAYERS, HEADS = 64, 2, 4
DROPOUT = 0.1
RATE, WARMUP, DECAY = 2e-3, 50, 0.1
HELD_OUT = 0.1
"""Share of the text that is not trained on."""
SAVED = (0, 10, 20, 50, 100, 200, 300, 500, 700, 900, 1200, 1500)
SMALLEST = 4
"""Singular values of W_U whose mean is told, beside the smallest one: some 5 % of d_model, for the paper's 10 of 768
are less than one here."""


def main() -> None:
    """Train, save, and tell how the two spectra end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("trained"))
    parser.add_argument("--seeds", default="0", help="with commas: each is a pair of models")
    parser.add_argument("--steps", type=int, default=SAVED[-1])
    parser.add_argument("--dropout", type=float, default=DROPOUT)
    asked = parser.parse_args()
    logging.disable_progress_bar()
    documents = list(open_corpus("lee-news", platformdirs.user_cache_path("calibroscope"), print).documents())
    tokenizer = trained_tokenizer(documents)
    tokens = encoded(tokenizer, documents)
    ended = {"plain": [], "dropout": []}
    for seed in (int(word) for word in asked.seeds.split(",")):
        for name, dropout in (("plain", 0.0), ("dropout", asked.dropout)):
            ended[name].append(train(asked.out / f"{name}-{seed}", tokenizer, tokens, dropout, seed, asked.steps))
    (asked.out / "outcome.json").write_text(json.dumps(ended, indent=1), encoding="utf-8")
    tell(ended)


def trained_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the corpus's own words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END], initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


def encoded(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> Tensor:
    """The corpus as one row of tokens, each document followed by the token that ends it."""
    end = int(tokenizer.convert_tokens_to_ids(END))
    ids = ([*tokenizer(document, add_special_tokens=False).input_ids, end] for document in documents)
    return torch.tensor(list(itertools.chain.from_iterable(ids)))


def batches(tokens: Tensor, seed: int) -> Iterator[Tensor]:
    """Sequences from random places, [BATCH, LENGTH], without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,), generator=generator)
        yield torch.stack([tokens[start : start + LENGTH] for start in starts])


def train(
    folder: Path, tokenizer: PreTrainedTokenizerFast, tokens: Tensor, dropout: float, seed: int, steps: int
) -> dict[str, float]:
    """One model's training, saved on its way; how its spectrum and its loss end."""
    training = tokens[: round(len(tokens) * (1 - HELD_OUT))]
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=D_MODEL, n_layer=LAYERS, n_head=HEADS, n_positions=LENGTH,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    decayed = [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decayed, lr=RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    began = time.monotonic()
    for step, batch in zip(range(steps + 1), batches(training, seed), strict=False):
        if step in (*SAVED, steps):
            save(folder / f"step{step}", model, tokenizer)
        if step == steps:
            break
        loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    values = spectrum(model)
    ended = {
        "train loss": mean_loss(model, training),
        "held-out loss": mean_loss(model, tokens[len(training) :]),
        "smallest / median": float(values[-1] / np.median(values)),
        f"mean of the smallest {SMALLEST} / median": float(values[-SMALLEST:].mean() / np.median(values)),
        "median": float(np.median(values)),
    }
    print(f"{folder.name}: {time.monotonic() - began:.0f} s,", ", ".join(f"{k} {v:.3f}" for k, v in ended.items()))
    return ended


def _rate(step: int, steps: int) -> float:
    """A linear warm-up, then a cosine down to a tenth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + float(np.cos(np.pi * (step - WARMUP) / max(steps - WARMUP, 1))))


def save(folder: Path, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """A checkpoint as a model folder: configuration, safetensors, tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def spectrum(model: GPT2LMHeadModel) -> np.ndarray:
    """Singular values of W_U, processed as in Appendix C: the norm's gain folded in, centred over both axes. The last
    of them, which centring makes 0 in every model with a LayerNorm, is left out."""
    gain = model.transformer.ln_f.weight.double()
    W_U = (model.lm_head.weight.double() * gain).T
    W_U = W_U - W_U.mean(dim=0, keepdim=True)
    W_U = W_U - W_U.mean(dim=1, keepdim=True)
    return torch.linalg.svdvals(W_U)[:-1].numpy()


@torch.no_grad()
def mean_loss(model: GPT2LMHeadModel, tokens: Tensor) -> float:
    """Nats a token, over sequences that follow one another, without dropout."""
    model.eval()
    rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)[:256]
    losses = [float(model(part, labels=part).loss) for part in rows.split(32)]
    model.train()
    return float(np.mean(losses))


def tell(ended: dict[str, list[dict[str, float]]]) -> None:
    """Means over the seeds with standard errors, and the paired differences."""
    for name in ended["plain"][0]:
        plain, dropped = (np.array([one[name] for one in ended[kind]]) for kind in ("plain", "dropout"))
        print(f"{name}: plain {_mean(plain)}, dropout {_mean(dropped)}, difference {_mean(dropped - plain)}")


def _mean(values: np.ndarray) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
