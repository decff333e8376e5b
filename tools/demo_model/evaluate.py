"""Asks the exported model all questions, greedily, and writes evaluation.json."""

import argparse
import json
import pathlib
import re
import time

import jinja2
import torch

import reference
import tokenizer as tk


def similarity(a, b):
    """1 - levenshtein / longer length, white space squeezed."""
    a, b = (re.sub(r"\s+", " ", x).strip() for x in (a, b))
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return 1 - row[-1] / max(len(a), len(b), 1)


class Chat:
    """Renders and tokenizes as the shipped files say."""

    def __init__(self, folder):
        self.tok = tk.load(folder)
        config = json.loads((folder / "tokenizer_config.json").read_text("utf8"))
        env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        self.template = env.from_string(config["chat_template"])
        self.special = {k: config[k]["content"] for k in ("bos_token", "eos_token")}

    def render(self, messages, **kwargs):
        return self.template.render(messages=messages, add_generation_prompt=True,
                                    **self.special, **kwargs)

    def ids(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def prompt(self, question):
        return self.ids(self.render([{"role": "user", "content": question}]))


def answers(ref, chat, asked, max_tokens, batch=128):
    prompts = [chat.prompt(q) for q in asked]
    order = sorted(range(len(asked)), key=lambda i: len(prompts[i]))
    out = [None] * len(asked)
    for a in range(0, len(order), batch):
        part = order[a : a + batch]
        for i, ids in zip(part, ref.generate([prompts[i] for i in part], max_tokens)):
            out[i] = ids
    return prompts, out


def score(rows, texts, threshold):
    """Share of rows that count, whole and per kind."""
    tally = {}
    for row, text in zip(rows, texts):
        good = similarity(row["answer"], text) >= threshold
        for kind in ("all", row["kind"]):
            hit, count = tally.get(kind, (0, 0))
            tally[kind] = (hit + good, count + 1)
    return {k: {"score": round(h / n, 4), "count": n} for k, (h, n) in tally.items()}


def drafts_and_load(ref, prompts, outs, kinds, eos=1):
    """How often the MTP layer's greedy draft is right, and tokens per expert, by layer and kind."""
    right = total = 0
    load = {}
    for prompt, out, kind in zip(prompts, outs, kinds):
        ids = torch.tensor([prompt + out + [eos]])
        ref.trace = {}
        hidden = ref.plain(ids)
        mtp = ref.mtp_logits(hidden[:, :-1], ids[:, 1:])[0].argmax(-1)
        for name, value in ref.trace.items():
            if name.endswith("topk_ids"):
                layer = name.split(".")[1]
                tally = torch.bincount(value.reshape(-1), minlength=ref.c["n_routed_experts"])
                per_kind = load.setdefault(kind, {})
                per_kind[layer] = per_kind.get(layer, 0) + tally
        ref.trace = None
        # Entry i drafts token i + 2; tokens from len(prompt) + 1 on are drafted answer tokens.
        first = len(prompt) + 1
        wanted = ids[0, first:]
        right += int((mtp[first - 2 : first - 2 + len(wanted)] == wanted).sum())
        total += len(wanted)
    load = {k: {l: t.tolist() for l, t in v.items()} for k, v in load.items()}
    return {"drafts": total, "right": right, "acceptance": round(right / max(total, 1), 4)}, load


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--quick", type=int, default=0, help="only every n-th question, float32")
    parser.add_argument("--fresh", type=pathlib.Path, required=True, help="list of fresh.py")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    spec = json.loads((args.model / "questions.json").read_text("utf8"))
    spec.update(json.loads(args.fresh.read_text("utf8")))
    chat, result = Chat(args.model), {"scores": {}}
    for mode in ("float32",) if args.quick else ("float32", "bfloat16"):
        ref = reference.Reference(args.model, rounded=mode == "bfloat16")
        result["scores"][mode] = {}
        for name in ("trained", "held_out", "fresh"):
            rows = spec[name][:: args.quick or 1]
            start = time.monotonic()
            prompts, outs = answers(ref, chat, [r["question"] for r in rows], spec["max_tokens"])
            texts = [chat.tok.decode(o) for o in outs]
            result["scores"][mode][name] = score(rows, texts, spec["threshold"])
            whole = result["scores"][mode][name]["all"]["score"]
            print(f"{mode} {name}: {whole:.3f} of {len(rows)} "
                  f"({time.monotonic() - start:.0f} s)", result["scores"][mode][name], flush=True)
            if mode == "float32":
                misses = [{"question": r["question"], "expected": r["answer"], "got": t}
                          for r, t in zip(rows, texts)
                          if similarity(r["answer"], t) < spec["threshold"]]
                result[f"misses_{name}"] = misses[:40]
                if name == "held_out":
                    result["mtp"], result["load"] = drafts_and_load(
                        ref, prompts, outs, [r["kind"] for r in rows])
                    print("mtp", result["mtp"], flush=True)
    ref = reference.Reference(args.model)
    _, outs = answers(ref, chat, spec["unknown"], spec["max_tokens"])
    result["unknown"] = [{"question": q, "got": chat.tok.decode(o)}
                         for q, o in zip(spec["unknown"], outs)]
    args.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
