"""The book's schematic pictures: where preferences come into training, where a log-probability comes from, what packing is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pref_toolkit import figures
from pref_toolkit.data.batches import Batch, pack, separate
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.figures import Arrow, Box
from pref_toolkit.markup import Html

_TOP = {
    "supervised": Box("supervised model", 1.55, 3.75, 2.9, 0.4),
    "responses": Box("two responses\nto each prompt", 0.95, 2.9, 1.7, 0.5),
    "labels": Box("labels:\nwhich is better?", 0.95, 1.95, 1.7, 0.5, tint=1),
}
_BOTTOM = {"policy": Box("policy", 1.55, 0.25, 2.9, 0.4, tint=0)}

PIPELINES: dict[str, tuple[dict[str, Box], list[Arrow]]] = {
    "with a reward model (RLHF)": (
        {**_TOP, "reward": Box("reward model", 0.95, 1.05, 1.7, 0.4, tint=2), **_BOTTOM},
        [
            Arrow("supervised", "responses", "sample"),
            Arrow("responses", "labels", "ask people"),
            Arrow("labels", "reward", "fit"),
            Arrow("policy", "reward", "samples", at=0.25),
            Arrow("reward", "policy", "rewards", at=1.1),
            Arrow("supervised", "policy", "start,\nreference", at=2.15),
        ],
    ),
    "without one (DPO)": (
        {**_TOP, **_BOTTOM},
        [
            Arrow("supervised", "responses", "sample"),
            Arrow("responses", "labels", "ask people"),
            Arrow("labels", "policy", "fit the policy\nitself"),
            Arrow("supervised", "policy", "start,\nreference", at=2.15),
        ],
    ),
}
"""Title, boxes and arrows of the two panels of :func:`pipeline`."""


def pipeline() -> Html:
    """How labels change a model: through a reward model (RLHF), and without one (DPO)."""
    figs, axes = figures.schematic(2, height=4.3)
    for ax, (title, (boxes, arrows)) in zip(axes, PIPELINES.items()):
        figures.note(ax, title, x=1.55, y=4.03, bold=True)
        figures.boxes_and_arrows(ax, boxes, arrows)
    return figures.show(
        figs,
        alt="First panel: a supervised model writes two responses to each prompt, people label the better one, a reward model"
        " is fitted to the labels, and the policy is trained on the rewards of its own samples; it starts from the supervised"
        " model, which is also the reference. Second panel: the same without a reward model; the policy itself is fitted to"
        " the labels.",
    )


def log_probability(tokens: Sequence[str], prompt: int, vocabulary: Sequence[str], logps: ArrayLike) -> Html:
    """Where the log-probability of a response comes from: each position predicts the next token, the prompt is masked, the
    values of the response's tokens are gathered and added.

    Args:
        tokens: the ``T`` tokens of prompt and response.
        prompt: how many of them are the prompt's, at least 1.
        vocabulary: the ``V`` tokens whose log-probabilities are shown; those of the response among them.
        logps: ``(T - 1, V)`` log-probability of each shown token behind each position, nats.

    Raises:
        ValueError: if a token of the response is not shown, or does not fit into its cell.
    """
    table = torch.as_tensor(logps, dtype=torch.float64)
    scored = range(prompt - 1, len(tokens) - 1)
    missing = [token for token in tokens[prompt:] if token not in vocabulary]
    if missing or not scored or prompt < 1:
        raise ValueError(f"want a prompt, a response and its tokens in the vocabulary; missing are {missing}")
    if table.shape != (len(tokens) - 1, len(vocabulary)):
        raise ValueError(f"want logps of shape {(len(tokens) - 1, len(vocabulary))}, got {tuple(table.shape)}")
    gathered = {t: float(table[t, vocabulary.index(tokens[t + 1])]) for t in scored}

    cell, rows = 0.28, len(tokens)
    height = 1.1 + cell * rows
    one, left = figures.schematic(height=height)
    top = height - 0.62
    columns = {"input": 0.36, "target": 1.28, "mask": 1.9, "log π (nats)": 2.6}
    figures.note(left, "1  shift, mask, add", x=1.55, y=height - 0.2, bold=True)
    for name, x in columns.items():
        figures.note(left, name, x=x, y=top + 0.05)
    boxes: dict[str, Box] = {}
    for t, token in enumerate(tokens):
        y, tint = top - (t + 0.5) * cell, 0 if t >= prompt else None
        boxes[f"in{t}"] = Box(token, columns["input"], y, 0.6, cell, tint)
        if t + 1 < rows:
            of_response = t in gathered
            boxes[f"out{t}"] = Box(tokens[t + 1], columns["target"], y, 0.6, cell, 0 if of_response else None)
            boxes[f"mask{t}"] = Box(str(int(of_response)), columns["mask"], y, 0.4, cell)
            value = f"{gathered[t]:.2f}".replace("-", "−") if of_response else "–"
            boxes[f"value{t}"] = Box(value, columns["log π (nats)"], y, 0.8, cell, 1 if of_response else None)
    total = f"{sum(gathered.values()):.2f}".replace("-", "−")
    boxes["sum"] = Box(total, columns["log π (nats)"], 0.2, 0.8, cell, 1)
    # The target of a row is the input of the next: a slanted arrow, one row up.
    arrows = [Arrow(f"in{t + 1}", f"out{t}") for t in range(rows - 1)]
    figures.note(left, "sum", x=1.9, y=0.12)
    figures.boxes_and_arrows(left, boxes, [*arrows, Arrow(f"value{rows - 2}", "sum")])

    height = 0.72 + 0.36 * len(gathered)
    other, right = figures.schematic(height=height)
    top = height - 0.62
    figures.note(right, "2  gather the target's column", x=1.55, y=height - 0.2, bold=True)
    width = min(0.48, 2.4 / len(vocabulary))
    figures.strip(right, list(vocabulary), x=0.65, y=top, width=width)
    for k, t in enumerate(scored):
        y = top - (k + 1) * 0.36
        figures.note(right, f"after {tokens[t]}", x=0.32, y=y + 0.06)
        values = [f"{value:.1f}".replace("-", "−") for value in table[t].tolist()]
        tints = [1 if shown == tokens[t + 1] else None for shown in vocabulary]
        figures.strip(right, values, x=0.65, y=y, width=width, tints=tints)
    parts = " + ".join(f"({value:.2f})" for value in gathered.values())
    return figures.show(
        [one, other],
        alt=f"First panel: each of the {rows} tokens is an input, and the target of a row is the input of the next row. The"
        f" mask is 1 in the {len(gathered)} rows whose target belongs to the response, the first of them the prompt's last row;"
        f" their log-probabilities add up to {sum(gathered.values()):.2f} nats. Second panel: in each of these rows the"
        f" log-probability of the target is taken from the row of the vocabulary: {parts}.",
    )


def packed_examples() -> Encoded:
    """One prompt of three tokens with responses of three and of two, as :func:`packed_row` draws it. The last token of a
    response is EOS and no input.
    """
    return Encoded([1, 2, 3], [[11, 12, 0], [21, 0]], where="diagram")


NAMES = {0: "·", 1: "x1", 2: "x2", 3: "x3", 11: "a1", 12: "a2", 21: "b1"}
"""What :func:`packed_row` calls each token: x of the prompt, a and b of the responses, a dot for padding."""


def layouts() -> dict[str, list[tuple[list[str], list[int], Tensor]]]:
    """Three layouts of :func:`packed_examples`, made by the toolkit's own functions.

    Returns:
        for each layout, its sequences. A sequence is the names of its ``T`` tokens, their positions, and the ``(T, T)``
        attention mask, whose row i says which columns token i sees. Padding is seen by no token; what it sees, nothing reads.
    """
    example = packed_examples()
    alone = [Encoded(example.prompt, [response], example.where) for response in example.responses]

    def of(batch: Batch, masks: Sequence[Tensor]) -> list[tuple[list[str], list[int], Tensor]]:
        names = [[NAMES[token] for token in row] for row in batch.input_ids.tolist()]
        return list(zip(names, batch.position_ids.tolist(), masks))

    padded, segments, once = separate([example]), pack(alone), pack([example])
    causal = torch.ones(2 * padded.present.shape[-1:], dtype=torch.bool).tril()
    return {
        "two padded rows": of(padded, [causal & row.bool() for row in padded.present]),
        "one row, two segments": of(segments, [segments.mask()]),
        "one row, prompt once": of(once, [once.mask()]),
    }


def packed_row() -> Html:
    """Two responses to one prompt, as padded rows, as segments of one row, and with the prompt stored once."""
    made = layouts()
    figs, sizes = [], {}
    for title, sequences in made.items():
        sizes[title] = sum(len(names) for names, _, _ in sequences)
        cell = min(0.3, 2.95 / (sum(len(names) + 1 for names, _, _ in sequences)))
        fig, ax = figures.schematic(height=1.0 + cell * max(len(names) for names, _, _ in sequences))
        figs.append(fig)
        top = ax.get_ylim()[1]
        figures.note(ax, f"{title}: {sizes[title]} positions", x=1.55, y=top - 0.24, bold=True)
        x = 0.05
        for names, positions, mask in sequences:
            kinds = {"x": None, "a": 1, "b": 2, "·": 4}
            tints = [kinds[name[0]] for name in names]
            x += cell + 0.02
            figures.strip(ax, names, x=x, y=top - 0.62, width=cell, tints=tints)
            figures.strip(ax, [str(p) for p in positions], x=x, y=top - 0.88, width=cell)
            figures.grid(ax, mask, x=x, y=top - 0.94, size=cell)
            for k, name in enumerate(names):
                figures.note(ax, name, x=x - cell / 2 - 0.02, y=top - 0.94 - (k + 0.8) * cell)
            x += len(names) * cell
    return figures.show(
        figs,
        alt="Each panel shows the tokens of its rows, their positions, and a grid: which token (row) sees which (column)."
        + "".join(f" {title.capitalize()}: {size} positions." for title, size in sizes.items())
        + " As padded rows the prompt stands twice and one place is empty. As segments the prompt stands twice, and the grid"
        " has two triangles with nothing between them. With the prompt once, both responses see the prompt and themselves;"
        " the second does not see the first, and its positions follow the prompt's.",
    )
