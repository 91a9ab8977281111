"""What a reader sees of a chapter's code: not the lines that hand numbers to the prose, and a name on each folded cell."""

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from notebooks import without_glue
from sphinx.transforms.post_transforms import SphinxPostTransform


class ShownCode(SphinxPostTransform):
    default_priority = 198  # before myst-nb folds cells

    def run(self, **kwargs):
        for section in self.document.findall(nodes.section):
            if section["ids"] in (["exercise-content"], ["solution-content"]):
                section["ids"] = []  # the same on each of them, and an id is for one place
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") != "cell_code":
                continue
            for source in list(
                cell.findall(lambda n: isinstance(n, nodes.container) and n.get("nb_element") == "cell_code_source")
            ):
                for block in list(source.findall(nodes.literal_block)):
                    kept = without_glue(block.astext())
                    if kept:
                        block.rawsource, block[:] = kept, [nodes.Text(kept)]
                    else:
                        source.parent.remove(source)
            if cell.get("hide_mode"):
                what = "the code" if len(cell.children) > 1 else "the check"
                cell["prompt_show"], cell["prompt_hide"] = f"Show {what}", f"Hide {what}"


def open_details(self, node):
    """As in myst-nb, but the words that are seen are the name that is spoken."""
    classes = " ".join(node["classes"])
    self.body.append(f'<details class="admonition hide {classes}">\n<summary>\n')
    for state in ("show", "hide"):
        seen = {"show": "collapsed", "hide": "expanded"}[state]
        self.body.append(f'<p class="{seen} admonition-title">{node[f"prompt_{state}"]}</p>\n')
    self.body.append("</summary>\n")


def close_details(self, node):
    self.body.append("</details>\n")


def setup(app):
    app.setup_extension("myst_nb")
    app.add_node(HideCodeCellNode, override=True, html=(open_details, close_details))
    app.add_post_transform(ShownCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
