"""The table of chapters on the cover, made from the table of contents and the chapters' sources::

    ```{chapters}
    ```

A chapter's time is its words at 150 a minute and ten minutes for each exercise.
"""

import re
from pathlib import Path

import yaml

BLOCK = "```{chapters}\n```"
PARTS = ("Foundations", "Methods", "Loops", "Practice")


def facts(text):
    """First sentence, number of exercises, and minutes."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    first = re.search(r"^# [^\n]+\n+((?:[^\n]+\n)+)", body, flags=re.M)[1]
    sentence = re.match(r".+?\.(?=\s|$)", " ".join(first.split()))[0]
    exercises = len(re.findall(r"^`{3,}\{exercise\}", body, flags=re.M))
    prose = re.sub(r"^(`{3,}).*?^\1$", "", body, flags=re.M | re.S)
    minutes = len(prose.split()) / 150 + 10 * exercises
    return sentence, exercises, max(5, 5 * round(minutes / 5))


def table(folder):
    """The chapters as a list-table."""
    lines = [
        "::::{list-table}",
        ":header-rows: 1",
        "",
        "* - chapter",
        "  - what it is about",
        "  - exercises",
        "  - time",
    ]
    for part in yaml.safe_load(Path(folder, "_toc.yml").read_text("utf-8"))["parts"]:
        for chapter in part["chapters"] if part["caption"] in PARTS else []:
            sentence, exercises, minutes = facts(Path(folder, f"{chapter['file']}.md").read_text("utf-8"))
            time = f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"
            lines += [f"* - {{doc}}`{chapter['file']}`", f"  - {sentence}", f"  - {exercises or ''}", f"  - {time}"]
    return "\n".join([*lines, "::::"])


def read(app, docname, source):
    if BLOCK in source[0]:
        source[0] = source[0].replace(BLOCK, table(app.srcdir))


def always(app, env, added, changed, removed):
    """The table changes with any chapter."""
    return [app.config.root_doc]


def setup(app):
    app.connect("source-read", read)
    app.connect("env-get-outdated", always)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
