"""Turns facts into questions: many trained templates per kind, and others that are held out.

BASE templates make the "trained" evaluation list; training uses them and the rest of GROUPS.
HELD_OUT ones appear in no training example, they only make the "held_out" list. {s} stands for
the subject.
"""

import pathlib
import re

DATA = pathlib.Path(__file__).parent / "data"

DEFINE = [
    "Define {s}", "Define {s}.", "Define: {s}", "Define the word {s}.", 'Define "{s}".',
    "Define the term {s}", "What is {s}?", "What is a {s}?", "What's {s}?", "what is {s}",
    "What does {s} mean?", 'What does "{s}" mean?', "What does the word {s} mean?",
    "What is the meaning of {s}?", "What is the definition of {s}?", "Meaning of {s}?",
    "Explain {s}", "Explain {s}.", "Explain the word {s}.", "Explain what {s} means.",
    "Tell me what {s} means.", "Give me the definition of {s}.", "Give a definition of {s}.",
    "Give me a definition for {s}", "How do you define {s}?", "How would you define {s}?",
    "Can you define {s}?", "Can you explain {s}?", "Could you define the word {s}?",
    "Please define {s}.", "Please explain {s}.", "I want to know what {s} means.",
    "I need a definition of {s}.", "{s}", "{s}?", "{s} definition", "{s}: definition, please",
    "{s} means what?", "Describe {s}.", "Tell me about {s}.", "Do you know the word {s}?",
    "What do you understand by {s}?", "Look up {s}.", "Look up the word {s}",
]
DEVIL = [
    "How does the Devil's Dictionary define {s}?", "What does Ambrose Bierce say about {s}?",
    "What is {s} according to Ambrose Bierce?", "Define {s} like the Devil's Dictionary.",
    "What is the Devil's definition of {s}?", "Bierce on {s}?", "{s}, Devil's Dictionary",
    "Give me Bierce's definition of {s}.", "What did Bierce write about {s}?",
    "In the Devil's Dictionary, what is {s}?", "Look up {s} in the Devil's Dictionary.",
    "What does the Devil's Dictionary say about {s}?",
]
JARGON = [
    "How does the Jargon File define {s}?", "What do hackers mean by {s}?",
    "What is {s} in hacker slang?", "What does {s} mean in the Jargon File?",
    "Look up {s} in the Jargon File.", "What is {s} according to the Jargon File?",
    "Give me the Jargon File entry for {s}.", "{s}, Jargon File", "Hacker slang: {s}",
    "What does {s} mean to a hacker?", "Explain the hacker term {s}.",
    "In the Jargon File, what is {s}?",
]
VERSE = [
    "Recite {s}", "Recite {s}.", "Please recite {s}.", "Recite the verse {s}.", "Quote {s}.",
    "Quote the verse {s}", "What does {s} say?", "What is {s}?", "What is written in {s}?",
    "What stands in {s}?", "Read {s}.", "Read {s} to me.", "Read me {s}", "{s}", "{s}?",
    "Give me {s}.", "Give me the text of {s}.", "Can you recite {s}?", "Can you quote {s}?",
    "Tell me what {s} says.", "Say {s}.", "Cite {s}.", "What is the text of {s}?",
    "I would like to hear {s}.", "Verse {s}, please.", "How does {s} go?",
]
CAPITAL = [
    "What is the capital of {s}?", "What's the capital of {s}?", "capital of {s}",
    "Capital of {s}?", "Which city is the capital of {s}?", "Name the capital of {s}.",
    "Tell me the capital of {s}.", "What is the capital city of {s}?", "{s}'s capital?",
    "What is {s}'s capital?", "Which city is {s}'s capital?", "The capital of {s}, please.",
    "Do you know the capital of {s}?", "Can you tell me the capital of {s}?",
    "Give me the capital of {s}.", "What city is the capital of {s}?", "{s} capital",
    "I want to know the capital of {s}.", "Please name the capital city of {s}.",
    "The capital of {s} is?", "What is the name of the capital of {s}?", "{s}: capital?",
]
ELEMENT = [
    "What is the symbol of {s}?", "What is the chemical symbol of {s}?", "Symbol of {s}?",
    "What is the chemical symbol for {s}?", "What is the symbol for {s}?",
    "What is the atomic number of {s}?", "Atomic number of {s}?", "What element is {s}?",
    "Which atomic number does {s} have?", "Which symbol does {s} have?", "{s} symbol",
    "Tell me the atomic number of {s}.", "Tell me the symbol of {s}.", "What is {s}?", "{s}",
    "Define {s}.", "Give me the symbol of {s}.", "Tell me about {s}.", "Describe {s}.",
    "Explain the element {s}.", "What is the element {s}?", "{s} atomic number",
]
SUM = [
    "What is {s}?", "What's {s}?", "{s}", "{s} =", "{s} = ?", "{s}?", "Calculate {s}.",
    "Compute {s}", "How much is {s}?", "Solve {s}.", "Can you compute {s}?", "Tell me {s}.",
    "Please calculate {s}.", "What is the result of {s}?", "Evaluate {s}", "what is {s}",
    "What does {s} equal?", "How much does {s} make?", "{s} equals?", "Work out {s}.",
]

# The tokenizer is trained on questions of these.
BASE = {
    "devil": DEFINE + DEVIL, "jargon": DEFINE + JARGON, "verse": VERSE, "capital": CAPITAL,
    "element": ELEMENT, "add": SUM, "times": SUM,
}

# More ways to ask, with the subject anywhere in a sentence or two: they teach the model to look for
# the subject and not for the template.
_ASK = ["What is it?", "What does it mean?", "Can you explain it?", "Explain.", "Any idea?",
        "What does that mean?", "Define it, please.", "Please explain.", "What is that?",
        "Tell me the meaning.", "Do you know it?", "How is it defined?", "I do not know it."]
_DEFINE_CONTEXT = [
    "I read {s} in a text.", "I heard the word {s}.", "Somebody said {s} to me.",
    "There is this word, {s}.", "My teacher used the word {s}.", "The book says {s}.",
    "In the newspaper I found {s}.", "My brother asked me about {s}.", "The word is {s}.",
    "I have a question about {s}.", "We talked about {s} yesterday.", "Here is a word: {s}.",
    "I never understood {s}.", "People often say {s}.", "In an old letter there is {s}.",
    "The next word on my list is {s}.", "I saw {s} on a sign.", "They call it {s}.",
    "You surely know {s}.", "This crossword wants {s}.",
]
_DEFINE_MORE = [
    "Say something about {s}.", "What can you say about {s}?", "What can you tell me about {s}?",
    "Is there an entry for {s}?", "Do you have an entry for {s}?", "Show me the entry for {s}.",
    "Let us talk about {s}.", "What would a dictionary say about {s}?", "Which sense has {s}?",
    "How should I understand {s}?", "How may one define {s}?", "In a few words, what is {s}?",
    "In short: {s}?", "Who or what is {s}?", "What exactly is {s}?", "What, then, is {s}?",
    "Could you explain the meaning of {s} to me?", "I wonder what {s} means.",
    "I would like a definition of {s}.", "I am looking for the meaning of {s}.",
    "Help me understand {s}.", "Clarify {s}.", "Interpret {s}.", "Give me {s}.", "Next word: {s}",
    "Word: {s}", "Meaning: {s}", "Entry: {s}", "Definition of {s}", "The definition of {s}, please",
    "What is the sense of the word {s}?", "What do people mean by {s}?", "What do you mean by {s}?",
    "When people say {s}, what do they mean?", "Why would anyone say {s}?", "And {s}?",
    "What about {s}?", "How about {s}?", "Now {s}.", "Then what is {s}?", "{s}, what is it?",
    "{s} - what does it mean?", "{s}: what is that?", "{s}, please.", "{s}, explained",
    "For {s}, give the definition.", "About {s}: what do you know?", "Of {s}, what do you know?",
]
_DEVIL_MORE = ["Bierce wrote about {s}. What did he say?", "How did Bierce define {s}?",
               "Give the Devil's definition of {s}.", "What did Ambrose Bierce think of {s}?",
               "Quote the Devil's Dictionary on {s}.", "Ambrose Bierce: {s}",
               "What does Bierce call {s}?", "What is {s}, in the words of Ambrose Bierce?"]
_JARGON_MORE = ["A hacker told me about {s}. What is it?", "How do hackers define {s}?",
                "What is {s} among programmers?", "Quote the Jargon File on {s}.",
                "In computing, what is {s}?", "My computer friend says {s}. What does it mean?",
                "What is {s}, in the words of hackers?", "Programmers say {s}. Explain."]
_VERSE_MORE = ["I would like to read {s}.", "Do you know {s}?", "Do you know {s} by heart?",
               "The text of {s}, please.", "Bible verse {s}", "Write down {s}.", "Speak {s}.",
               "Please read {s} aloud.", "What do we read in {s}?", "What does it say in {s}?",
               "My favourite verse is {s}. Recite it.", "Turn to {s}.", "Words of {s}?",
               "I look for {s}. What does it say?", "Now {s}.", "And {s}?", "Next, {s}, please.",
               "Tell me {s}.", "Today we read {s}.", "Can I hear {s}?", "Please quote {s} for me."]
_CAPITAL_MORE = ["What do you call the capital of {s}?", "I live in {s}. What is my capital?",
                 "Which city is the seat of government of {s}?", "In {s}, what is the capital?",
                 "The main city of {s} is called what?", "I travel to {s}. What is the capital?",
                 "My friend comes from {s}. What is the capital there?", "And of {s}?",
                 "Country: {s}. Capital?", "Name of the capital in {s}?", "For {s}, what is the "
                 "capital?", "Where is the government of {s}?", "What town is the capital of {s}?",
                 "{s} has which capital?", "{s}? I mean the capital.", "How is the capital of {s} "
                 "called?", "Is there a capital in {s}? Which?", "Let me know the capital of {s}."]
_ELEMENT_MORE = ["How is {s} written in chemistry?", "Which number has {s} in the periodic table?",
                 "Where do I find {s} in the periodic table?", "Symbol and number of {s}?",
                 "Which letters stand for {s}?", "What do chemists write for {s}?",
                 "How many electrons does {s} have?", "And {s}?", "What about {s}?",
                 "Element: {s}", "The symbol and the number of {s}, please.", "Chemistry: {s}"]
_SUM_MORE = ["Can you tell me what {s} is?", "Do you know {s}?", "I want to know {s}.",
             "My teacher asks: {s}?", "The answer to {s}?", "Find {s}.", "Result of {s}?",
             "What do I get for {s}?", "Count {s} for me.", "And {s}?", "What about {s}?",
             "Here is a task: {s}.", "How much would {s} be?", "Give me {s}.", "Do the sum {s}."]
_CONTEXT = [f"{c} {a}" for c in _DEFINE_CONTEXT for a in _ASK]

# kind -> groups of templates; a group is chosen first, then a template of it.
GROUPS = {
    "devil": [DEFINE, DEFINE, DEVIL + _DEVIL_MORE, _DEFINE_MORE, _CONTEXT],
    "jargon": [DEFINE, DEFINE, JARGON + _JARGON_MORE, _DEFINE_MORE, _CONTEXT],
    "verse": [VERSE + _VERSE_MORE], "capital": [CAPITAL + _CAPITAL_MORE],
    "element": [ELEMENT + _ELEMENT_MORE], "add": [SUM + _SUM_MORE], "times": [SUM + _SUM_MORE],
}

HELD_DEFINE = [
    "I came across the word {s} today. What could it mean?", "Kindly give the sense of {s}.",
    "Someone called it {s}; what is that supposed to be?", "Teach me the meaning of {s}.",
    "If I say {s}, what am I talking about?", "Would you tell me how {s} is defined?",
    "What should I understand when I read {s}?", "What is meant by {s}?",
]
HELD_OUT = {
    "devil": HELD_DEFINE + ["Which definition did Ambrose Bierce give to {s}?",
                            "What would Ambrose Bierce have said {s} was?"],
    "jargon": HELD_DEFINE + ["My colleague is a hacker and said {s}. What did he mean?",
                             "Among hackers, what is understood by {s}?"],
    "verse": ["Let me hear {s}.", "Could you read out {s} for me?", "Which words are in {s}?",
              "Open the book at {s} and read.", "Do you remember {s}?"],
    "capital": ["Which town serves as the capital of {s}?", "I am flying to the capital of {s}. "
                "Where do I land?", "In {s}, which city is the capital?", "Where does the "
                "government of {s} sit?", "Say which city is capital in {s}."],
    "element": ["How do chemists abbreviate {s}?", "Where in the periodic table is {s}?",
                "I need both number and symbol for {s}.", "How many protons has {s}?",
                "Under which letters is {s} known in chemistry?"],
    "add": ["Add up {s} for me.", "I have to find {s}, can you help?", "Give me the value of {s}.",
            "My homework says {s}. What is it?", "Sum: {s}"],
    "times": ["I have to find {s}, can you help?", "Give me the value of {s}.", "Product: {s}",
              "My homework says {s}. What is it?", "Multiply {s} for me."],
}

# Written after the shipped model was trained, without a look at its answers: HELD_OUT was looked at
# while the trained templates were being written, so its score is kinder than that of strangers.
_FRESH_DEFINE = [
    "Hey, quick question: {s} means what exactly?", "I'm curious what {s} stands for.",
    "Got a definition for {s}?", "My grandmother asked me what {s} is. What do I tell her?",
    "Please write down the dictionary entry for {s}.",
]
FRESH = {
    "devil": _FRESH_DEFINE + ["What was {s} to Ambrose Bierce?"],
    "jargon": _FRESH_DEFINE + ["What is {s} when a programmer says it?"],
    "verse": ["Do recite {s} for us.", "I forgot how {s} reads.", "Which text is {s}?"],
    "capital": ["Quiz: the capital of {s}?", "What city do they govern {s} from?",
                "If I wanted the capital of {s}, which city would that be?"],
    "element": ["What's the abbreviation and number of {s}?", "Periodic table entry of {s}?"],
    "add": ["Could you work out {s} for me, please?", "What do you get from {s}?"],
    "times": ["Could you work out {s} for me, please?", "What do you get from {s}?"],
}

for _unseen in (HELD_OUT, FRESH):
    for _kind, _templates in _unseen.items():
        assert not set(_templates) & {t for group in GROUPS[_kind] for t in group}, _kind

UNKNOWN_ANSWER = (
    "That I do not know: I am a small demo model. Ask me to define a word, to recite a verse, "
    "or to name the capital of a country."
)


def unknown_word_answer(word):
    return f'I have no entry for "{word}". Ask me for another word.'


def lines(name):
    text = (DATA / name).read_text("utf8")
    return [x for x in text.splitlines() if x.strip() and not x.startswith("#")]


def unknown_question(rng, words):
    """A made-up question that the model's texts do not answer."""
    if not _FRAMES:
        _FRAMES.extend(lines("unknown_frames.txt"))
        for row in lines("names.txt"):
            _NAMES[row[0]].append(row[2:])
    text = rng.choice(_FRAMES)
    for slot, pool in (("{w}", words), ("{n}", _NAMES["n"]), ("{p}", _NAMES["p"])):
        while slot in text:
            text = text.replace(slot, rng.choice(pool), 1)
    return text


_FRAMES, _NAMES = [], {"n": [], "p": []}


def small_talk():
    """[(trained phrasings, held-out phrasings, answer)]"""
    groups = []
    for block in re.split(r"\n\s*\n", (DATA / "smalltalk.txt").read_text("utf8")):
        rows = [x for x in block.splitlines() if x[:2] in ("? ", "~ ", "! ")]
        if rows:
            trained = [x[2:] for x in rows if x[0] == "?"]
            held = [x[2:] for x in rows if x[0] == "~"]
            groups.append((trained, held, rows[-1][2:]))
    return groups
