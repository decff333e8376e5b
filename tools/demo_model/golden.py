"""Writes expected/golden.{json,safetensors}: what an engine must compute from the shipped files."""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file

import evaluate
import reference

CASES = [
    ("question", [{"role": "user", "content": "Define patience."}], {}),
    ("system", [{"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "What is the capital of France?"}], {}),
    ("turns", [{"role": "user", "content": "Recite Genesis 1:1."},
               {"role": "assistant", "content": "Genesis 1:1. In the beginning God created the "
                                                "heaven and the earth."},
               {"role": "user", "content": "Thank you! What is 7 * 8?"}], {}),
    ("thinking", [{"role": "user", "content": "What do hackers mean by foobar?"}],
     {"thinking": True}),
    ("unicode", [{"role": "user", "content": "Grüße! Übersetze „日本語“ 🙂 into  English,\n\n"
                                             "please: 1234567 x=y_z (naïve)."}], {}),
]
NEW_TOKENS, LAST = 48, 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, required=True)
    folder = parser.parse_args().model
    torch.set_grad_enabled(False)
    ref, chat = reference.Reference(folder), evaluate.Chat(folder)
    tensors, prompts = {}, []
    for index, (name, messages, kwargs) in enumerate(CASES):
        text = chat.render(messages, **kwargs)
        ids = chat.ids(text)
        ref.trace = {} if index == 0 else None
        hidden = ref.plain(torch.tensor([ids]))
        if ref.trace:
            for key, value in ref.trace.items():
                value = value[0] if key.startswith("hidden") else value
                tensors[f"prompt0.{key}"] = value.int() if "ids" in key else value
        ref.trace = None
        # Greedy, one token at a time without a cache: slow and beyond doubt.
        out, logprobs, margins, all_ids = [], [], [], list(ids)
        for _ in range(NEW_TOKENS):
            logits = ref.logits(ref.plain(torch.tensor([all_ids]))[:, -1])[0]
            best = logits.topk(2)
            token = int(best.indices[0])
            out.append(token)
            logprobs.append(float(torch.log_softmax(logits, -1)[token]))
            margins.append(float(best.values[0] - best.values[1]))
            all_ids.append(token)
            if token == 1:
                break
        full = torch.tensor([all_ids])
        mtp = ref.mtp_logits(ref.plain(full[:, :-1]), full[:, 1:])[0]
        drafts = mtp.argmax(-1)[len(ids) - 1 : -1].tolist()
        tensors |= {
            f"prompt{index}.input_ids": torch.tensor(ids, dtype=torch.int32),
            f"prompt{index}.logits_last{LAST}": ref.logits(hidden)[0, -LAST:],
            f"prompt{index}.mtp.logits_last{LAST}": mtp[len(ids) - LAST : len(ids)],
            f"prompt{index}.greedy_ids": torch.tensor(out, dtype=torch.int32),
            f"prompt{index}.greedy_logprobs": torch.tensor(logprobs),
        }
        prompts.append({
            "index": index, "name": name, "messages": messages, "template_kwargs": kwargs,
            "text": text, "length": len(ids), "input_ids": ids, "greedy_ids": out,
            "greedy_text": chat.tok.decode(out), "greedy_logprobs": [round(x, 6) for x in logprobs],
            "min_top1_top2_logit_gap": min(margins), "mtp": {
                "draft_ids": drafts, "draft_checked": len(out) - 1,
                "draft_matches_greedy": sum(a == b for a, b in zip(drafts, out[1:]))},
        })
    expected = folder / "expected"
    expected.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, expected / "golden.safetensors")
    (expected / "golden.safetensors").chmod(0o644)
    spec = {
        "name": "demo", "model_type": "deepseek_v3",
        "math": "float32, weights upcast, no intermediate rounding; greedy ends at eos (id 1)",
        "notes": f"logits_last{LAST}: the last {LAST} prompt positions. mtp.logits_last{LAST}: "
                 "the MTP layer at the same positions, fed with the next token (at the last "
                 "position the first greedy token). mtp.draft_ids[i] drafts greedy_ids[i + 1].",
        "new_tokens": NEW_TOKENS, "prompts": prompts,
    }
    (expected / "golden.json").write_text(json.dumps(spec, ensure_ascii=False, indent=1) + "\n",
                                          "utf8")
    for p in prompts:
        print(p["name"], repr(p["greedy_text"]), p["mtp"]["draft_matches_greedy"], "/",
              p["mtp"]["draft_checked"], f"margin {p['min_top1_top2_logit_gap']:.3f}")


if __name__ == "__main__":
    main()
