"""The layout: every token has one place, prompts go in and out without moving the backbone's tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pathotune.errors import ConfigError
from pathotune.tokens import KINDS, TokenLayout

layouts = st.builds(
    TokenLayout, registers=st.integers(0, 4), tvp=st.integers(0, 5), ttp=st.integers(0, 4), ivp=st.integers(0, 3)
)


def numbered(layout: TokenLayout, patches: int = 6) -> Tensor:
    """A backbone's sequence whose tokens are their own numbers: (2, prefix + patches, 1)."""
    return torch.arange(layout.prefix + patches, dtype=torch.float32).reshape(1, -1, 1).expand(2, -1, -1)


def prompts_of(layout: TokenLayout, start: float) -> dict[str, Tensor]:
    sizes = {kind: getattr(layout, kind) for kind in KINDS if getattr(layout, kind)}
    return {kind: torch.full((2, size, 1), start - 100 * number) for number, (kind, size) in enumerate(sizes.items())}


@given(layouts)
def test_parts_cover_the_sequence_in_the_order_of_the_paper(layout: TokenLayout) -> None:
    whole = list(range(layout.prefix + layout.prompts + 6))
    parts = ["cls", "registers", "tvp", "ttp", "ivp", "image"]
    assert [index for part in parts for index in whole[layout.place(part)]] == whole
    assert len(whole[layout.place("image")]) == 6


@given(layouts)
def test_prompts_land_in_their_place_and_nothing_else_moves(layout: TokenLayout) -> None:
    sequence, prompts = numbered(layout), prompts_of(layout, -1.0)
    full = layout.insert(sequence, prompts)
    assert torch.equal(layout.remove(full), sequence)
    for kind, tokens in prompts.items():
        assert torch.equal(full[:, layout.place(kind)], tokens)


@given(layouts)
def test_what_is_taken_out_can_be_put_back(layout: TokenLayout) -> None:
    prompts = prompts_of(layout, -1.0)
    bare, kept = layout.take_out(layout.insert(numbered(layout), prompts))
    assert torch.equal(bare, numbered(layout))
    assert list(kept) == [kind for kind in KINDS if kind in prompts]
    assert all(torch.equal(kept[kind], tokens) for kind, tokens in prompts.items())


def test_without_prompts_the_sequence_itself_is_returned() -> None:
    sequence = numbered(TokenLayout(registers=2))
    assert TokenLayout(registers=2).insert(sequence, {}) is sequence


def test_wrong_numbers_are_refused() -> None:
    layout = TokenLayout(tvp=2)
    with pytest.raises(ConfigError, match="tvp"):
        layout.insert(numbered(layout), {"tvp": torch.zeros(2, 3, 1)})
    with pytest.raises(ConfigError, match="prompts must be"):
        layout.insert(numbered(layout), {})
    with pytest.raises(ConfigError, match="part must be"):
        layout.place("patches")
    with pytest.raises(ConfigError, match="registers must be >= 0"):
        TokenLayout(registers=-1)
