"""Conversations of our own in the form of Anthropic's HH: whole transcripts, a pair of which shares all but the last reply.

They take the place of HH's real ones, which may lie beside a checkout but are no part of it.
"""

import gzip
import json
from itertools import cycle
from pathlib import Path

REAL = Path(__file__).parents[2] / "shared" / "data" / "hh_harmless_dev.jsonl.gz"

LONG_LIST = "; ".join(f"on day {n} we walk {n + 3} km and sleep in hut number {2 * n}" for n in range(1, 31))

# What was said in turn, and the two last replies, the better one first.
CONVERSATIONS = [
    (
        ["How long do I boil an egg?"],
        "Seven minutes for a firm yolk, five for a soft one.",
        "Eggs are eaten in many lands.",
    ),
    (["What rhymes with stone?"], "Bone, alone and throne do.", "Rock does not."),
    (["Is 91 a prime number?"], "No, 91 is 7 times 13.", "Yes, it is."),
    (
        ["My tomato plants have yellow leaves."],
        "Do you water them every day? That may be too much.",
        "Paint them green.",
    ),
    (["Translate 'good night' into French."], "Bonne nuit, or « bonne soirée » earlier on.", "Good night."),
    (["Can I mix bleach and vinegar?"], "Never: that makes a poisonous gas.", "Sure, it cleans better."),
    (["I lost my keys."], "Where did you last have them in your hand?", "Then buy a new house."),
    (["Name a bird that cannot fly."], "The kiwi.", "The kiwi. And the swallow, and the eagle, and the owl."),
    (["Who are you?"], "A program that answers.", " "),
    (
        ["Hi!", "Hello, what can I do for you?", "Tell me a joke."],
        "Why did the loss fall? It had no support.",
        "No.",
    ),
    (
        ["I sleep badly.", "Since when?", "Since I work at night."],
        "Keep the room dark by day, and go to bed at the same hour.",
        "Work less.",
    ),
    (
        ["Where is the Nile?", "In Africa.", "And how long is it?"],
        "About 6,650 km.",
        "About 6,650 km.\n\nHuman: And how wide?\n\nAssistant: That depends on the place.",
    ),
    (
        ["What is DPO?", "A way to train a model on preferences.", "Does it need a reward model?"],
        "No, the policy takes its place.",
        "Yes, always, and a large one.",
    ),
    (
        ["Quote me.", "Gladly. What did you say?", 'I said "Human: hello", with a colon.'],
        'You said "Human: hello", with a colon.',
        "I would rather not.",
    ),
    (
        ["¿Hablas español?", "Sí, un poco.", "¿Cómo se dice 雪?"],
        "Se dice «nieve» ❄.",
        "No lo sé.",
    ),
    (
        ["Two and two?", "Four.", "And two more?", "Six.", "And two more?"],
        "Eight.",
        "Seven,\nor nine.",
    ),
    (
        ["Help me write to my landlord.", "What is wrong?", "The heating.", "Since when?", "Since Monday."],
        "Dear Sir or Madam,\n\nthe heating has been off since Monday. Please have it mended.",
        "Dear Landlord, it is cold.",
    ),
    (["Sum this up: " + LONG_LIST + "."], "Thirty days of walking from hut to hut.", "It is a list."),
    (["Plan our walk of thirty days."], f"With pleasure: {LONG_LIST}.", "You had better take the train."),
    (["Say nothing."], "", "I cannot say nothing."),
    (["Which is heavier, a kilo of iron or of wool?"], "Neither is.", "Iron is."),
    (["May I park here?"], "I cannot see where you are; look for a sign.", "Yes."),
    (["Spell 'necessary'."], "n-e-c-e-s-s-a-r-y", "n-e-c-c-e-s-a-r-y"),
    (["Count to five.  "], "1, 2, 3, 4, 5", "1, 2, 3, 5, 4"),
]


def transcript(said, reply):
    turns = zip(cycle(["Human", "Assistant"]), said)
    return "".join(f"\n\n{who}: {what}" for who, what in turns) + f"\n\nAssistant: {reply}"


def real():
    """The rows of the real file, if it is there."""
    if not REAL.is_file():
        return []
    with gzip.open(REAL, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


MADE = [
    {"chosen": transcript(said, better), "rejected": transcript(said, worse)} for said, better, worse in CONVERSATIONS
]
SOURCES = {"made": MADE} | ({"real": rows} if (rows := real()) else {})
