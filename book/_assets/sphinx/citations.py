"""How a citation reads, "Azar et al. (2023)", and how the bibliography does: by author, without labels."""

from dataclasses import dataclass, field

from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle
from sphinxcontrib.bibtex.plugin import register_plugin as register_reference_style
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle


def round_brackets():
    return BracketStyle(left="(", right=")")


@dataclass
class AuthorYearInParentheses(AuthorYearReferenceStyle):
    bracket_textual: BracketStyle = field(default_factory=round_brackets)
    bracket_parenthetical: BracketStyle = field(default_factory=round_brackets)


class AuthorYearLabel(BaseLabelStyle):
    """The label of an entry is how the chapters cite it."""

    def format_labels(self, sorted_entries):
        for entry in sorted_entries:
            names = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
            several = names[0] + " et al." if len(names) > 2 or names[-1] == "others" else " and ".join(names)
            yield f"{several} ({entry.fields['year']})".replace("{", "").replace("}", "")


class ByAuthor(Style):
    default_sorting_style = "author_year_title"
    default_label_style = "author_year_in_parentheses"


def entries_of_a_list(app, pagename, templatename, context, doctree):
    """A list's children must be its items; docutils gives them a role of their own, which is deprecated."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app):
    app.connect("html-page-context", entries_of_a_list)
    register_reference_style(
        "sphinxcontrib.bibtex.style.referencing", "author_year_in_parentheses", AuthorYearInParentheses
    )
    register_plugin("pybtex.style.labels", "author_year_in_parentheses", AuthorYearLabel)
    register_plugin("pybtex.style.formatting", "by_author", ByAuthor)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
