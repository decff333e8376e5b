"""Trains the model: seeded, resumable, checkpoints every few minutes, a log line per 20 steps."""

import argparse
import json
import os
import pathlib
import random
import signal
import time

import torch

import examples
import model
import sources
import tokenizer as tk

BF16 = torch.bfloat16


class Batches:
    """Endless packed batches; epoch e is a pure function of (seed, e)."""

    def __init__(self, folder, seed, rows):
        data = json.loads((folder / "facts.json").read_text())
        facts = [sources.Fact(**f) for f in data["facts"]]
        words = [w for w in data["unknown_words"] if not sources.UNWANTED.search(w)]
        self.corpus = examples.Corpus(facts, words)
        self.encoder = examples.Encoder(tk.load(folder))
        self.seed, self.rows = seed, rows
        self.epoch, self.at, self.packed = -1, 0, None

    def _load(self, epoch):
        rng = random.Random(self.seed * 1_000_003 + epoch)
        encoded = list(self.encoder.encode_all(self.corpus.conversations(rng)))
        packed = examples.pack(encoded, rng, self.encoder.pad)
        self.packed = [torch.from_numpy(x) for x in packed]
        self.epoch, self.at = epoch, 0

    def seek(self, epoch, at):
        self._load(epoch)
        self.at = at

    def next(self):
        if self.packed is None or self.at + self.rows > len(self.packed[0]):
            self._load(self.epoch + 1)
        span = slice(self.at, self.at + self.rows)
        self.at += self.rows
        return [x[span] for x in self.packed]


def learning_rate(step, args):
    """Warm up, stay, then fall linearly to zero over the last `decay` share of the steps."""
    start = args.steps * (1 - args.decay)
    fall = 1.0 if step < start else max(0.0, (args.steps - step) / (args.steps - start))
    return min(1.0, (step + 1) / args.warmup) * fall


class Trainer:
    def __init__(self, args):
        self.args, self.shape = args, model.Shape()
        self.batches = Batches(args.corpus, args.seed, args.rows)
        self.masters = model.initial_parameters(self.shape, args.seed)
        moe = range(self.shape.dense_layers, self.shape.layers + 1)
        self.bias = {l: torch.zeros(self.shape.experts) for l in moe}
        self.leaves = {n: t.to(BF16).requires_grad_() for n, t in self.masters.items()}
        self.model = model.Model(self.shape, self.leaves, self.bias)
        wide = [t for t in self.masters.values() if t.dim() > 1]
        thin = [t for t in self.masters.values() if t.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": wide, "weight_decay": args.weight_decay},
             {"params": thin, "weight_decay": 0.0}],
            lr=args.lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
        for t in self.masters.values():
            t.grad = torch.zeros_like(t)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.load = {l: torch.zeros(self.shape.experts) for l in moe}

    def save(self, path):
        state = {
            "shape": self.shape, "masters": self.masters, "bias": self.bias,
            "optimizer": self.optimizer.state_dict(), "step": self.step,
            "seconds": self.seconds, "tokens": self.tokens, "load": self.load,
            "epoch": self.batches.epoch, "at": self.batches.at,
        }
        torch.save(state, str(path) + ".new")
        os.replace(str(path) + ".new", path)

    def resume(self, path):
        state = torch.load(path, weights_only=False)
        for name, t in state["masters"].items():
            self.masters[name].copy_(t)
        for l, b in state["bias"].items():
            self.bias[l].copy_(b)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
        self.load = state["load"]
        self.batches.seek(state["epoch"], state["at"])
        self.refresh()

    def refresh(self):
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(self.masters[name])

    def balance(self, rate):
        """DeepSeek's auxiliary-loss-free balance: a fixed step against each expert's error."""
        for l, load in self.model.load.items():
            load = load.float()
            self.bias[l] += rate * torch.sign(load.mean() - load)
            self.load[l].mul_(0.98).add_(load / load.sum(), alpha=0.02)

    def train_step(self):
        args = self.args
        batch = self.batches.next()
        (goal, loss, hit), (mtp_goal, mtp_loss, mtp_hit) = self.model.losses(*batch)
        (goal + args.mtp_weight * mtp_goal).backward()
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                self.masters[name].grad.copy_(leaf.grad)
                leaf.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0, foreach=True)
        factor = learning_rate(self.step, args)
        for group in self.optimizer.param_groups:
            group["lr"] = args.lr * factor
        self.optimizer.step()
        self.refresh()
        self.balance(args.bias_step * (4 if self.step < 200 else factor))
        self.step += 1
        self.tokens += int((batch[1] > 0).sum())
        return [x.item() for x in (loss, hit, mtp_loss, mtp_hit, norm)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="checkpoints and log")
    parser.add_argument("--steps", type=int, default=2300)
    parser.add_argument("--stop-at", type=int, default=0, help="stop early, for tests")
    parser.add_argument("--rows", type=int, default=16, help="rows of 256 tokens in a step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--decay", type=float, default=0.5)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--bias-step", type=float, default=5e-3)
    parser.add_argument("--mtp-weight", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--save-seconds", type=float, default=180)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    trainer, path = Trainer(args), args.run / "checkpoint.pt"
    if path.exists():
        trainer.resume(path)
        print(f"resumed at step {trainer.step}", flush=True)
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(1))
    log = (args.run / "log.jsonl").open("a")
    last = saved = time.monotonic()
    sums, window_tokens, window_seconds = [], trainer.tokens, trainer.seconds
    end = args.stop_at or args.steps
    while trainer.step < end and not stop:
        sums.append(trainer.train_step())
        now = time.monotonic()
        trainer.seconds += now - last
        last = now
        if trainer.step % 20 == 0:
            mean = [sum(x) / len(sums) for x in zip(*sums)]
            speed = (trainer.tokens - window_tokens) / (trainer.seconds - window_seconds)
            skew = {l: float(v.max() / v.mean()) for l, v in trainer.load.items()}
            row = dict(zip(("loss", "hit", "mtp_loss", "mtp_hit", "grad_norm"), mean))
            row |= {"step": trainer.step, "epoch": trainer.batches.epoch,
                    "tokens": trainer.tokens, "seconds": round(trainer.seconds, 1),
                    "tokens_per_second": round(speed),
                    "lr": args.lr * learning_rate(trainer.step, args),
                    "skew": skew, "load_average": os.getloadavg()[0]}
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(f"step {trainer.step} loss {mean[0]:.3f} hit {mean[1]:.3f} mtp {mean[2]:.3f} "
                  f"hit {mean[3]:.3f} norm {mean[4]:.2f} {speed:.0f} tok/s "
                  f"skew {max(skew.values()):.2f} epoch {trainer.batches.epoch}", flush=True)
            sums, window_tokens, window_seconds = [], trainer.tokens, trainer.seconds
        if now - saved > args.save_seconds:
            trainer.save(path)
            saved = time.monotonic()
    trainer.save(path)


if __name__ == "__main__":
    main()
