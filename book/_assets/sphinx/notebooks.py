"""Two notebooks to download from each chapter, that read well in plain Jupyter.

They are made from the page as Sphinx resolved it: numbers stand in the prose, references are names and links, exercises are
headings. ``student`` has a cell to work in below each exercise and no solution; ``full`` has the solutions, their code folded.
Cells whose output alone is on the page are folded. What hands a number to the prose is left out of the code.
"""

import ast
import posixpath
import re
from pathlib import Path

import jupytext
import nbformat
from docutils import nodes
from sphinx.util import logging

LOG = logging.getLogger(__name__)
KINDS = ("student", "full")
FOLDED = {"hide-input", "remove-input", "remove-cell", "solution"}
START = """# This notebook needs the book's toolkit.
try:
    import pref_toolkit
except ModuleNotFoundError:
    raise SystemExit(
        "Install the toolkit first: `pip install .` in the book's folder, then restart this notebook."
    )"""


class Unknown(NotImplementedError):
    """A kind of text that has no form in Markdown yet."""


def without_glue(code):
    """The code without the lines that hand numbers to the page."""
    tree, lines = ast.parse(code), code.split("\n")

    def hands_over(statement):
        if isinstance(statement, ast.ImportFrom):
            return statement.module == "myst_nb"
        call = statement.value if isinstance(statement, ast.Expr) else None
        return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "glue"

    def dropped(statement):
        """The statement itself, or a loop or branch in which nothing else happens."""
        inner = [s for name in ("body", "orelse") for s in getattr(statement, name, [])]
        only = isinstance(statement, ast.For | ast.With | ast.If) and all(map(dropped, inner))
        return hands_over(statement) or only

    for parent in ast.walk(tree):
        for name in ("body", "orelse"):
            body = getattr(parent, name, [])
            for statement in body if isinstance(body, list) else []:
                if dropped(statement):
                    for k in range(statement.lineno - 1, statement.end_lineno):
                        lines[k] = None
    return re.sub(r"\n{3,}", "\n\n\n", "\n".join(line for line in lines if line is not None)).strip("\n")


class Writer:
    """A resolved page as pieces: ``("text", Markdown)``, ``("cell", number)``, ``("stub", code)``, ``("solution", bool)``."""

    def __init__(self, app, pagename):
        self.app, self.env, self.pagename, self.pieces = app, app.env, pagename, []

    def say(self, text):
        if text.strip():
            self.pieces.append(("text", text.strip("\n")))

    def number(self, kind, node):
        """The number of a figure, exercise or the like: ``3.2``."""
        numbers = self.env.toc_fignumbers.get(self.pagename, {}).get(kind, {})
        found = next((numbers[i] for i in node["ids"] if i in numbers), ())
        return ".".join(map(str, found))

    def page(self, node, depth=0):
        """Everything below a node, in order."""
        for child in node.children:
            kind = type(child).__name__
            if kind == "section" and isinstance(child.next_node(), nodes.title):
                self.say(f"{'#' * (depth + 1)} {self.inline(child[0])}")
                self.page(nodes.container("", *child.children[1:]), depth + 1)
            elif kind == "section":
                self.page(child, depth)
            elif child.get("nb_element") == "cell_code":
                self.pieces.append(("cell", self.cells_seen))
                self.cells_seen += 1
                self.caption(child)
            elif kind in ("exercise_node", "exercise_enumerable_node"):
                self.exercise(child)
            elif kind == "solution_node":
                self.pieces.append(("solution", True))
                self.say(f"**{self.inline(child[0]).strip()}**")
                self.page(nodes.container("", *child.children[1:]), depth)
                self.pieces.append(("solution", False))
            else:
                self.say(self.block(child))

    cells_seen = 0

    def caption(self, cell):
        for figure in cell.findall(nodes.figure):
            for caption in figure.findall(nodes.caption):
                self.say(f"**Fig. {self.number('figure', figure)}.** {self.inline(caption)}")

    def exercise(self, node):
        title = self.inline(node[0]).strip().removeprefix("(").removesuffix(")")
        self.say(f"### Exercise {self.number('exercise', node)}: {title}")
        stub = None
        for part in node[1].children:
            code = part.astext()
            if isinstance(part, nodes.literal_block) and "import check" in code:
                stub = code
            else:
                self.say(self.block(part))
        self.pieces.append(("stub", stub or "# your answer"))

    # Blocks: a node -> Markdown.

    def block(self, node):
        kind = type(node).__name__
        method = getattr(self, f"block_{kind}", None)
        if method:
            return method(node)
        if "realtype" in node.attributes:
            number = "" if node.get("nonumber") else f" {self.number(node['countertype'], node)}"
            body = nodes.container("", *node.children[1:])
            return f"> **{node['realtype'].title()}{number}{self.inline(node[0])}**\n>\n{self.block_block_quote(body)}"
        if isinstance(node, nodes.Invisible | nodes.raw | nodes.meta) or kind in ("toctree", "index"):
            return ""
        raise Unknown(f"{self.pagename}: no notebook form for the block {kind}: {node.astext()[:80]!r}")

    def blocks(self, children, between="\n\n"):
        return between.join(text for text in map(self.block, children) if text)

    def inside(self, node):
        return self.blocks(node.children)

    block_container = block_compound = block_section = block_glossary = block_tabular_col_spec = inside

    def block_paragraph(self, node):
        return self.inline(node)

    block_compact_paragraph = block_rubric = block_PassthroughTextElement = block_paragraph

    def block_target(self, node):
        return ""

    def block_transition(self, node):
        return "---"

    def block_title(self, node):
        return f"**{self.inline(node)}**"

    block_caption = block_title

    def block_literal_block(self, node):
        language = {"ipython3": "python", "default": ""}.get(node.get("language"), node.get("language") or "")
        return f"```{language}\n{node.astext()}\n```"

    def block_math_block(self, node):
        number = self.number("displaymath", node) if node.get("number") else ""
        tag = rf" \tag{{{number}}}" if number else ""
        text = node.astext().strip()
        if text.startswith((r"\begin{equation", r"\begin{align")):
            return (
                f"$$\n{text.replace('align*', 'aligned').replace('{align}', '{aligned}')}{tag}\n$$"
                if "align" in text[:16]
                else text
            )
        return f"$$\n{text}{tag}\n$$"

    def block_bullet_list(self, node):
        return "\n".join(self.item("- ", item) for item in node.children)

    def block_enumerated_list(self, node):
        first = node.get("start", 1)
        return "\n".join(self.item(f"{first + k}. ", item) for k, item in enumerate(node.children))

    def item(self, mark, item):
        return mark + self.inside(item).replace("\n", "\n" + " " * len(mark))

    def block_definition_list(self, node):
        said = []
        for item in node.children:
            terms = ", ".join(self.inline(t) for t in item.children if isinstance(t, nodes.term))
            said.append(
                self.item("- ", nodes.container("", *item.findall(nodes.definition))).replace(
                    "- ", f"- **{terms}**: ", 1
                )
            )
        return "\n".join(said)

    def block_definition(self, node):
        return self.inside(node)

    def block_block_quote(self, node):
        return "> " + self.inside(node).replace("\n", "\n> ")

    def block_admonition(self, node):
        return self.block_block_quote(node)

    block_note = block_warning = block_tip = block_seealso = block_admonition
    block_proof_node = block_topic = block_sidebar = block_figure = block_admonition

    def block_image(self, node):
        return f"![{node.get('alt', '')}]({node['uri']})"

    def block_table(self, node):
        rows = [[self.entry(entry) for entry in row.children] for row in node.findall(nodes.row)]
        title = [f"**{self.inline(t)}**\n" for t in node.children if isinstance(t, nodes.title)]
        head = rows[0] if next(node.findall(nodes.thead), None) else [" "] * len(rows[0])
        body = rows[1:] if next(node.findall(nodes.thead), None) else rows
        lines = [head, ["---"] * len(head), *body]
        return "\n".join([*title, *(f"| {' | '.join(line)} |" for line in lines)])

    def entry(self, node):
        return self.inside(node).replace("\n\n", "<br>").replace("\n", " ").replace("|", r"\|")

    # Within a line: a node -> Markdown.

    def inline(self, node):
        return "".join(map(self.word, node.children))

    def word(self, node):
        kind = type(node).__name__
        if isinstance(node, nodes.Text):
            return re.sub(r"([*_$<`])", r"\\\1", node.astext().replace("\n", " "))
        if kind in ("literal", "literal_strong", "literal_emphasis"):
            return f"`{node.astext()}`"
        if kind == "math":
            return f"${node.astext()}$"
        if kind in ("strong", "emphasis"):
            mark = "**" if kind == "strong" else "*"
            return f"{mark}{self.inline(node)}{mark}"
        if kind in ("reference", "number_reference"):
            return self.link(node)
        if kind in (
            "inline",
            "abbreviation",
            "title_reference",
            "term",
            "generated",
            "exercise_subtitle",
            "citation_reference",
        ):
            return self.inline(node)
        if kind in ("target", "raw", "comment", "index", "footnote_reference"):
            return ""
        if kind == "image":
            return self.block_image(node)
        raise Unknown(f"{self.pagename}: no notebook form for {kind} within a line: {node.astext()[:80]!r}")

    def link(self, node):
        """A link that works where the notebook lies: to the web, or to the notebook of another chapter beside it."""
        text, uri = self.inline(node), node.get("refuri", "")
        if re.match(r"[a-z]+:", uri):
            return f"[{text}]({uri})"
        page = posixpath.normpath(
            posixpath.join(posixpath.dirname(self.pagename), uri.partition("#")[0].removesuffix(".html"))
        )
        if not uri.partition("#")[0] or page == self.pagename:
            return text
        if base := self.app.config.html_baseurl:
            return f"[{text}]({base.rstrip('/')}/{page}.html)"
        if has_notebook(self.env, page):
            return f"[{text}]({posixpath.relpath(page, posixpath.dirname(self.pagename) or '.')}.ipynb)"
        return text


def has_notebook(env, pagename):
    return "kernelspec" in env.metadata.get(pagename, {})


def code_cells(path):
    """The code cells of a page in order, and whether each is part of a solution."""
    cells, solving = [], False
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "code":
            cells.append((cell, solving))
        else:
            for start, _ in re.findall(r"(\{solution-start\})|(\{solution-end\})", cell.source):
                solving = bool(start)
    return cells


def notebook(writer, path, kind):
    """The notebook of a page.

    Cells that the page does not show at all stand before the next one that it shows: what they hold is needed later.
    """
    source = code_cells(path)
    shown = [k for k, (cell, _) in enumerate(source) if "remove-cell" not in cell.metadata.get("tags", [])]
    made, text, solving, next_cell = [], [], False, 0

    def flush():
        if text:
            made.append(nbformat.v4.new_markdown_cell("\n\n".join(text)))
            text.clear()

    def code(cell, solves):
        tags = [*cell.metadata.get("tags", []), *(["solution"] if solves else [])]
        source = without_glue(cell.source)
        if source:
            folded = {"jupyter": {"source_hidden": True}} if FOLDED & set(tags) else {}
            flush()
            made.append(nbformat.v4.new_code_cell(source, metadata={**({"tags": tags} if tags else {}), **folded}))

    for what, value in writer.pieces:
        if what == "solution":
            solving = value
        elif what == "cell":
            for cell, solves in source[next_cell : shown[value] + 1]:
                if kind == "full" or not solves:
                    code(cell, solves)
            next_cell = shown[value] + 1
        elif kind == "student" and solving:
            continue
        elif what == "text":
            text.append(value)
        elif kind == "student":
            flush()
            made.append(nbformat.v4.new_code_cell(value))
    for cell, solves in source[next_cell:]:
        if kind == "full" or not solves:
            code(cell, solves)
    flush()
    made.insert(1, nbformat.v4.new_code_cell(START))
    for k, cell in enumerate(made):
        cell.id = f"cell-{k}"  # a random one would differ from build to build
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=about)


def write(app, pagename, templatename, context, doctree):
    if doctree is None or app.builder.name != "html" or not has_notebook(app.env, pagename):
        return
    writer = Writer(app, pagename)
    writer.page(doctree)
    for kind in KINDS:
        target = Path(app.outdir, "_notebooks", kind, pagename).with_suffix(".ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(writer, app.env.doc2path(pagename), kind), target)


def offer(app, pagename, templatename, context, doctree):
    """Put the two notebooks first behind the download arrow."""
    if doctree is None or app.builder.name != "html" or not has_notebook(app.env, pagename):
        return
    for button in context.get("header_buttons", []):
        if button["label"] == "download-buttons":
            root = context["pathto"]("_notebooks", 1)
            button["buttons"][:0] = [
                {
                    "type": "link",
                    "url": f"{root}/{kind}/{pagename}.ipynb",
                    "text": f"{name}.ipynb",
                    "icon": "fas fa-code",
                    "tooltip": tooltip,
                    "label": f"download-{kind}-notebook-button",
                }
                for kind, name, tooltip in (
                    ("student", "exercises", "Download the notebook, with exercises to fill in"),
                    ("full", "solutions", "Download the notebook with its solutions"),
                )
            ]


def setup(app):
    app.connect("html-page-context", write)
    app.connect("html-page-context", offer, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
