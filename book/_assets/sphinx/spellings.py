"""Search finds what readers type: the other spelling of a word, a hyphenated word as one, and a page's own synonyms.

A page names its synonyms in its header, ``keywords: [reward hacking, PPO]``.
"""

import re

from docutils import nodes

AMERICAN = [
    (r"is(e|ed|es|er|ers|ing|ation|ations|able)$", r"iz\1"),
    (r"yse(d|s|r)?$", r"yze\1"),
    (r"our(s|al|ed|ing|ite|able)?$", r"or\1"),
    (r"ll(ed|ing)$", r"l\1"),
    (r"ence$", "ense"),
    (r"tre$", "ter"),
]


def other_spellings(text):
    """Words that are not in the text and that somebody may type for one that is."""
    found = set()
    for word in set(re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())):
        forms = {word} | {re.sub(british, american, word) for british, american in AMERICAN if len(word) > 5}
        found |= forms | {form.replace("-", "") for form in forms if "-" in form}
    return sorted(found - set(re.findall(r"[a-z]+", text.lower())))


def add(app, doctree):
    metadata = app.env.metadata.get(app.env.docname, {})
    own = metadata.get("keywords", [])
    own = re.findall(r"\w+", " ".join(own) if isinstance(own, list) else own)  # the index takes word by word
    words = [*own, *other_spellings(doctree.astext())]
    doctree.append(nodes.meta(name="keywords", content=", ".join(words), lang="en"))


def setup(app):
    app.connect("doctree-read", add, priority=950)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
