"""Trains the byte-level BPE tokenizer: DeepSeek-V3's pre-tokenizer and special tokens."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
VOCAB_SIZE = 4096

# As in DeepSeek-V3's tokenizer.json.
PATTERNS = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]

# One line, in the manner of DeepSeek-V3.1: </think> opens an answer without a thinking block,
# <think> one with it; `thinking` is the variable that asks for it.
CHAT_TEMPLATE = (
    "{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{%- endif %}"
    "{%- if not thinking is defined %}{% set thinking = false %}{%- endif %}"
    "{%- if enable_thinking is defined %}{% set thinking = enable_thinking %}{%- endif %}"
    "{%- set ns = namespace(system='', after_user=false) %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{%- if ns.system %}{% set ns.system = ns.system + '\\n\\n' + message['content'] %}"
    "{%- else %}{% set ns.system = message['content'] %}{%- endif %}"
    "{%- endif %}{%- endfor %}"
    "{{- bos_token }}{{- ns.system }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}"
    "{{- '<｜User｜>' + message['content'] }}{%- set ns.after_user = true %}"
    "{%- elif message['role'] == 'assistant' %}"
    "{%- set content = message['content'] %}"
    "{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{%- endif %}"
    "{%- if ns.after_user %}{{- '<｜Assistant｜></think>' }}{%- endif %}"
    "{{- content + eos_token }}{%- set ns.after_user = false %}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt and ns.after_user %}"
    "{{- '<｜Assistant｜>' }}"
    "{%- if thinking %}{{- '<think>' }}{%- else %}{{- '</think>' }}{%- endif %}"
    "{%- endif %}"
)


def train(texts, path):
    tok = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in PATTERNS]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tok.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    # BOS, EOS and PAD take the ids 0, 1 and 2; the chat marks follow. They go into the vocabulary
    # first so that it ends at VOCAB_SIZE.
    marks = [AddedToken(t, special=False, normalized=False)
             for t in (USER, ASSISTANT, THINK, END_THINK)]
    trainer.special_tokens = [AddedToken(t, special=True, normalized=False)
                              for t in (BOS, EOS, PAD)] + marks
    tok.train_from_iterator(texts, trainer)
    # The trainer makes every special token special; the chat marks are not, as in DeepSeek's.
    spec = json.loads(tok.to_str())
    for token in spec["added_tokens"]:
        token["special"] = token["content"] in (BOS, EOS, PAD)
    path.write_text(json.dumps(spec, ensure_ascii=False, indent=1) + "\n", "utf8")


def write_config(folder, max_length):
    def token(content):
        return {"__type": "AddedToken", "content": content, "lstrip": False,
                "normalized": False, "rstrip": False, "single_word": False}

    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": token(BOS),
        "eos_token": token(EOS),
        "pad_token": token(PAD),
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": max_length,
        "tokenizer_class": "LlamaTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf8")


def load(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
