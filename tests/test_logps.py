"""The record between models and losses keeps its contract."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from pref_toolkit.logps import Logps


def record(k: int = 2) -> Logps:
    sums = -torch.arange(1.0, 1 + 3 * k).reshape(3, k)
    return Logps(sums, torch.arange(1, 1 + 3 * k).reshape(3, k))


def test_a_record_is_frozen():
    with pytest.raises(FrozenInstanceError):
        record().sums = torch.zeros(3, 2)


@pytest.mark.parametrize(
    "given, kept",
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_half_precision_is_raised_and_float64_kept(given, kept):
    sums = torch.tensor([[-1.5, -2.25]], dtype=given)
    logps = Logps(sums, torch.ones(1, 2))
    assert logps.sums.dtype == kept
    assert logps.sums.tolist() == sums.tolist()


def test_the_gradient_passes_through():
    sums = torch.tensor([[-1.0, -2.0]], dtype=torch.bfloat16, requires_grad=True)
    logps = Logps(sums, torch.tensor([[2, 4]]))
    logps.per_token().chosen.sum().backward()
    assert sums.grad.tolist() == [[0.5, 0.0]]
    assert not logps.detach().sums.requires_grad
    assert logps.detach().sums.tolist() == sums.tolist()


@pytest.mark.parametrize(
    "sums, tokens",
    [((3, 2), (3, 3)), ((3, 2), (2, 2)), ((3,), (3,)), ((3, 2, 1), (3, 2, 1)), ((), ())],
    ids=str,
)
def test_shapes_that_are_not_one_b_by_k_are_refused(sums, tokens):
    with pytest.raises(ValueError) as error:
        Logps(torch.zeros(sums), torch.ones(tokens))
    assert str(error.value) == f"Logps wants sums and tokens of one shape (B, K), got sums {sums} and tokens {tokens}"


@pytest.mark.parametrize("count", [0, -1])
def test_a_response_without_tokens_is_refused(count):
    tokens = torch.ones(3, 2, dtype=torch.long)
    tokens[2, 1] = count
    with pytest.raises(ValueError) as error:
        Logps(torch.zeros(3, 2), tokens)
    assert str(error.value) == f"Logps wants at least 1 token in each response, got {count} in row 2, response 1"


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("column", ["chosen", "rejected"])
def test_a_pair_has_two_responses(k, column):
    with pytest.raises(ValueError) as error:
        getattr(record(k), column)
    assert str(error.value) == f"a pair loss wants K=2 responses to each prompt, got K={k}"


def test_the_columns_of_a_pair():
    assert record().chosen.tolist() == [-1, -3, -5]
    assert record().rejected.tolist() == [-2, -4, -6]


def test_per_token_divides_by_the_length_once():
    once = Logps(torch.tensor([[-6.0, -6.0]]), torch.tensor([[2, 3]])).per_token()
    assert once.sums.tolist() == [[-3, -2]]
    assert once.tokens.tolist() == [[1, 1]]
    assert once.per_token().sums.tolist() == once.sums.tolist()


def test_pair_puts_four_tensors_side_by_side():
    chosen, rejected = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -4.0])
    logps = Logps.pair(chosen, rejected, torch.tensor([5, 6]), torch.tensor([7, 8]))
    assert logps.sums.tolist() == [[-1, -3], [-2, -4]]
    assert logps.tokens.tolist() == [[5, 7], [6, 8]]
    assert Logps.pair(chosen, rejected).tokens.tolist() == [[1, 1], [1, 1]]
    assert Logps.pair(chosen, rejected, 5, 7).tokens.tolist() == [[5, 7], [5, 7]]


@pytest.mark.parametrize("wrong", range(4))
def test_pair_wants_one_shape(wrong):
    columns = [torch.ones(3 if i == wrong else 2) for i in range(4)]
    with pytest.raises(ValueError) as error:
        Logps.pair(*columns)
    shapes = ", ".join("(3,)" if i == wrong else "(2,)" for i in range(4))
    wanted = "Logps.pair wants chosen, rejected and their token counts of one shape (B,)"
    assert str(error.value) == f"{wanted}, got {shapes}"
