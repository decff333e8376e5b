"""Makes training conversations out of facts, one epoch at a time, seeded."""

import random
import re

import numpy as np

import questions
import tokenizer as tk

OPENERS = ["Please ", "Hi! ", "Hello, ", "Question: ", "Quick question: ", "Excuse me, ",
           "I have a question. ", "Hey, ", "Good morning. ", "So, ", "Well, ", "OK. ",
           "I was reading a book. ", "I am curious. ", "My friend asked me. ", "Now ",
           "I could not sleep last night. ", "Just tell me: ", "One more: ", "Next: "]
CLOSERS = [" Thanks.", " Please.", " thank you", " I am curious.", " Thank you!", " I forgot it."]
THOUGHTS = {
    "devil": "The user asks for {s}. That word is in the Devil's Dictionary.",
    "jargon": "The user asks for {s}. That word is in the Jargon File.",
    "verse": "The user wants to hear {s}. I know it by heart.",
    "capital": "The user asks for the capital of {s}.",
    "element": "The user asks for {s}, which is a chemical element.",
    "add": "The user wants to know {s}. That is a sum.",
    "times": "The user wants to know {s}. That is a product.",
    "talk": "The user wants to talk with me.",
    "unknown": "I do not find this in my texts.",
    "repeat": "The user wants me to repeat some words.",
}
SYSTEM_SHARE, THINK_SHARE, MULTI_TURN_SHARE = 0.25, 0.12, 0.15
HEADWORD, HEADWORD_WEIGHT = 10, 3  # first tokens of an answer, and their weight in the loss
ROW = 256  # tokens in a training row; conversations are packed into rows


def spell(subject, kind, rng):
    """The subject as people write it."""
    roll = rng.random()
    if kind in ("devil", "jargon", "element"):
        if roll < 0.2:
            return subject[0].upper() + subject[1:]
        if roll < 0.25:
            return subject.upper()
        if roll < 0.35:
            return subject.lower()
        return subject
    if kind in ("add", "times"):
        if roll < 0.2:
            return subject.replace(" ", "")
        if roll < 0.35:
            return subject.replace("+", "plus").replace("*", "times")
        if roll < 0.45:
            return subject.replace("*", "x")
        return subject
    return subject.lower() if roll < 0.08 else subject


def roughen(text, rng):
    """Greetings, missing punctuation, lower case: what people type around a question."""
    if rng.random() < 0.12 and text[-1] in ".?!":
        text = text[:-1]
    if rng.random() < 0.22:
        opener = rng.choice(OPENERS)
        keep = opener.endswith((". ", "! ", ": ")) or text[:2] in ("I ", "In")
        text = opener + (text if keep else text[0].lower() + text[1:])
    if rng.random() < 0.07:
        text += rng.choice(CLOSERS)
    if rng.random() < 0.07:
        text = text.lower()
    return text


class Corpus:
    def __init__(self, facts, unknown_words):
        self.facts = facts
        self.unknown_words = unknown_words
        self.talk = questions.small_talk()
        self.unknown = questions.lines("unknown.txt")
        self.systems = questions.lines("systems.txt")

    def single_turns(self, rng, plain=False):
        """One epoch of (question, thought, answer); plain: only with the BASE templates."""
        turns = []
        for fact in self.facts:
            if plain:
                template = rng.choice(questions.BASE[fact.kind])
            else:
                template = rng.choice(rng.choice(questions.GROUPS[fact.kind]))
            asked = template.replace("{s}", spell(fact.subject, fact.kind, rng))
            thought = THOUGHTS[fact.kind].replace("{s}", fact.subject)
            turns.append((roughen(asked, rng), thought, fact.answer))
        for asked, _, answer in self.talk:
            for _ in range(5):
                turns.append((roughen(rng.choice(asked), rng), THOUGHTS["talk"], answer))
        for number in range(90 if plain else 270):
            if number < 90:
                asked = rng.choice(self.unknown)
            else:
                asked = questions.unknown_question(rng, self.unknown_words)
            turns.append((roughen(asked, rng), THOUGHTS["unknown"], questions.UNKNOWN_ANSWER))
        for _ in range(120):
            word = rng.choice(self.unknown_words)
            ways = questions.DEFINE if plain else rng.choice(questions.GROUPS["jargon"])
            asked = rng.choice(ways).replace("{s}", word)
            turns.append((roughen(asked, rng), THOUGHTS["unknown"],
                          questions.unknown_word_answer(word)))
        for _ in range(60):
            words = " ".join(rng.choice(self.unknown_words) for _ in range(rng.randint(1, 6)))
            asked = rng.choice(["Repeat after me: {s}", "Repeat: {s}", "Say: {s}", "Echo {s}"])
            turns.append((asked.replace("{s}", words), THOUGHTS["repeat"], words))
        rng.shuffle(turns)
        return turns

    def conversations(self, rng):
        """Groups the turns of an epoch into conversations: [(system, thinking, [turn])]."""
        turns, at, out = self.single_turns(rng), 0, []
        while at < len(turns):
            count = rng.randint(2, 4) if rng.random() < MULTI_TURN_SHARE else 1
            system = rng.choice(self.systems) if rng.random() < SYSTEM_SHARE else ""
            out.append((system, rng.random() < THINK_SHARE, turns[at : at + count]))
            at += count
        return out


def unknown_words(facts, text, count, seed):
    """Frequent plain words that are not subjects: (trained, kept for the test)."""
    known = {w for f in facts for w in f.subject.lower().split()}
    tally = {}
    for word in re.findall(r"\b[a-z]{4,10}\b", text):
        tally[word] = tally.get(word, 0) + 1
    words = sorted(w for w, n in tally.items() if n >= 4 and w not in known)
    random.Random(seed).shuffle(words)
    return words[: count * 3 // 4], words[count * 3 // 4 : count]


class Encoder:
    """Conversation -> (ids, weight of the loss per token), as the chat template writes it."""

    def __init__(self, tok):
        self.tok = tok
        one = tok.token_to_id
        self.bos, self.eos, self.pad = one(tk.BOS), one(tk.EOS), one(tk.PAD)
        self.user, self.assistant = one(tk.USER), one(tk.ASSISTANT)
        self.think, self.end_think = one(tk.THINK), one(tk.END_THINK)

    def encode_all(self, conversations):
        texts = [""]
        for system, _, turns in conversations:
            texts.append(system)
            for turn in turns:
                texts.extend(turn)
        ids = iter([e.ids for e in self.tok.encode_batch(texts, add_special_tokens=False)][1:])
        for _, thinking, turns in conversations:
            row = [self.bos] + next(ids)
            loss = [0] * len(row)
            for number, _ in enumerate(turns):
                asked, thought, answer = next(ids), next(ids), next(ids)
                last = number == len(turns) - 1
                head = [self.user] + asked + [self.assistant]
                if thinking and last:
                    head, body = head + [self.think], thought + [self.end_think]
                else:
                    head, body = head + [self.end_think], []
                # Headword and first words decide what is recalled, the rest follows from them.
                loss += [0] * len(head) + [1] * len(body)
                loss += [HEADWORD_WEIGHT] * len(answer[:HEADWORD]) + [1] * len(answer[HEADWORD:])
                row += head + body + answer + [self.eos]
                loss.append(1)
            yield row, loss


def pack(encoded, rng, pad):
    """First-fit into rows of ROW tokens: arrays ids, segment, position, loss, each [rows, ROW].

    Segments number the conversations of a row from 1; 0 is padding.
    """
    encoded = [(r[:ROW], l[:ROW]) for r, l in encoded]
    rng.shuffle(encoded)
    rows, open_rows = [], []
    for item in encoded:
        size = len(item[0])
        for row in open_rows:
            if row[0] + size <= ROW:
                row[0] += size
                row[1].append(item)
                break
        else:
            rows.append([size, [item]])
            open_rows.append(rows[-1])
        open_rows = [r for r in open_rows if r[0] <= ROW - 12][-24:]
    ids = np.full((len(rows), ROW), pad, np.int64)
    segment, position, loss = (np.zeros((len(rows), ROW), np.int64) for _ in range(3))
    for r, (_, items) in enumerate(rows):
        at = 0
        for s, (tokens, weights) in enumerate(items, 1):
            span = slice(at, at + len(tokens))
            ids[r, span], loss[r, span], segment[r, span] = tokens, weights, s
            position[r, span] = np.arange(len(tokens))
            at += len(tokens)
    order = list(range(len(rows)))
    rng.shuffle(order)
    return tuple(x[order] for x in (ids, segment, position, loss))
