"""Draws the pictures and writes the model card from the training log and the evaluation."""

import argparse
import json
import pathlib
import string

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

KINDS = {
    "devil": "Devil's Dictionary", "jargon": "Jargon File", "verse": "verses",
    "capital": "capitals", "element": "chemical elements", "add": "sums", "times": "products",
    "talk": "small talk", "all": "**all**",
}


def read_log(path):
    """One row per step: after a resume the later row counts."""
    rows = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        rows[row["step"]] = row
    return [rows[k] for k in sorted(rows)]


def draw_curve(log, path):
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), dpi=90)
    steps = [r["step"] for r in log]
    axes[0].plot(steps, [r["loss"] for r in log], label="next token", lw=1.2)
    axes[0].plot(steps, [r["mtp_loss"] for r in log], label="token after it (MTP layer)", lw=1.2)
    axes[0].set(xlabel="step", ylabel="loss on answer tokens (nats)", yscale="log")
    axes[0].legend(frameon=False)
    axes[1].plot(steps, [100 * r["hit"] for r in log], label="next token", lw=1.2)
    axes[1].plot(steps, [100 * r["mtp_hit"] for r in log], label="MTP layer", lw=1.2)
    axes[1].set(xlabel="step", ylabel="answer tokens predicted right, %", ylim=(0, 101))
    rate = axes[1].twinx()
    rate.plot(steps, [r["lr"] for r in log], color="gray", ls=":", lw=1)
    rate.set_ylabel("learning rate (dotted)", color="gray")
    for ax in axes:
        ax.grid(alpha=0.25)
    fig.tight_layout()
    fig.savefig(path)
    plt.close(fig)


def share(load, kinds):
    """[layer, expert]: tokens of each expert relative to the mean of its layer."""
    layers = sorted(next(iter(load.values())), key=int)
    table = np.array([sum(np.array(load[k][l]) for k in kinds) for l in layers], float)
    return layers, table / table.mean(1, keepdims=True)


def draw_load(load, path, mtp_layer):
    panels = [("all held-out questions", list(load)), ("Devil's Dictionary only", ["devil"]),
              ("sums and products only", ["add", "times"])]
    fig, axes = plt.subplots(len(panels), 1, figsize=(9.5, 5.4), dpi=90, sharex=True)
    for ax, (title, kinds) in zip(axes, panels):
        layers, table = share(load, kinds)
        image = ax.imshow(table, aspect="auto", cmap="viridis", vmin=0, vmax=3)
        names = [f"layer {l}" if int(l) != mtp_layer else "MTP" for l in layers]
        ax.set_yticks(range(len(layers)), names)
        ax.set_title(f"{title} (largest / mean: {table.max():.2f})", fontsize=9)
        for group in range(1, 4):
            ax.axvline(8 * group - 0.5, color="white", lw=0.8)
    axes[-1].set_xlabel("routed expert (white lines: groups)")
    fig.colorbar(image, ax=axes, label="tokens / mean of the layer", extend="max")
    fig.savefig(path, bbox_inches="tight")
    plt.close(fig)


def score_table(scores):
    lists = ("trained", "held_out", "fresh")
    rows = ["| questions | trained | held out | fresh | trained, bf16 | held out, bf16 | fresh, bf16 |",
            "|---|---|---|---|---|---|---|"]
    for kind, name in KINDS.items():
        tallies = [scores[mode][which].get(kind)
                   for mode in ("float32", "bfloat16") for which in lists]
        cells = [f"{100 * t['score']:.1f} %" if t else "-" for t in tallies]
        count = scores["float32"]["trained"][kind]["count"]
        rows.append(f"| {name} ({count}) | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def load_table(load, mtp_layer):
    rows = ["| layer | largest / mean | smallest / mean | experts never used |", "|---|---|---|---|"]
    layers, table = share(load, list(load))
    for l, row in zip(layers, table):
        name = "MTP" if int(l) == mtp_layer else l
        rows.append(f"| {name} | {row.max():.2f} | {row.min():.2f} | {(row == 0).sum()} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--log", type=pathlib.Path, required=True)
    parser.add_argument("--evaluation", type=pathlib.Path, required=True)
    parser.add_argument("--note", default="", help="a sentence about the machine and its load")
    args = parser.parse_args()
    log = read_log(args.log)
    result = json.loads(args.evaluation.read_text("utf8"))
    config = json.loads((args.model / "config.json").read_text())
    draw_curve(log, args.model / "training.png")
    draw_load(result["load"], args.model / "experts.png", config["num_hidden_layers"])
    last = log[-1]
    tail = [r for r in log if r["step"] > last["step"] - 100]
    mean = {k: sum(r[k] for r in tail) / len(tail) for k in ("loss", "hit", "mtp_loss", "mtp_hit")}
    samples = [f"| {x['question']} | {x['got']} |".replace("\n", " ")
               for x in result["unknown"][-10:]]
    misses = [f"* *{x['question']}* — {x['got']}" for x in result["misses_held_out"][:3]]
    template = (pathlib.Path(__file__).parent / "card.md.in").read_text("utf8")
    text = string.Template(template).substitute(
        steps=last["step"], tokens=f"{last['tokens'] / 1e6:.1f}", epochs=last["epoch"],
        minutes=f"{last['seconds'] / 60:.0f}",
        speed=f"{last['tokens'] / last['seconds']:.0f}",
        best_speed=max(r["tokens_per_second"] for r in log),
        load=f"{np.mean([r['load_average'] for r in log]):.1f}", note=args.note,
        loss=f"{mean['loss']:.3f}", hit=f"{100 * mean['hit']:.1f}",
        mtp_loss=f"{mean['mtp_loss']:.3f}", mtp_hit=f"{100 * mean['mtp_hit']:.1f}",
        scores=score_table(result["scores"]), experts=load_table(
            result["load"], config["num_hidden_layers"]),
        acceptance=f"{100 * result['mtp']['acceptance']:.1f}", drafts=result["mtp"]["drafts"],
        unknown="\n".join(samples), misses="\n".join(misses))
    (args.model / "README.md").write_text(text, "utf8")


if __name__ == "__main__":
    main()
