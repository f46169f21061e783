"""Masked words: the choice of tokens that a masked language model predicts, and their replacement.

BERT paper, section 3.1 and appendix A.1; `create_masked_lm_predictions` of google-research/bert.
"""

import numpy as np

SPECIAL, START, CONTINUATION = 0, 1, 2
"""Kinds of tokens: [CLS] and [SEP]; the first piece of a word; a further piece."""


def mask(
    input_ids: np.ndarray,
    kinds: np.ndarray,
    lengths: np.ndarray,
    draws: np.ndarray,
    *,
    rate: float,
    whole_words: bool,
    mask_id: int,
    vocab_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens and replace them: 80 % by [MASK], 10 % by a random token, 10 % stay.

    Args:
      input_ids: [tokens] of S sequences, end to end.
      kinds: [tokens], SPECIAL, START or CONTINUATION.
      lengths: [S] tokens of each sequence.
      draws: [3, tokens] uniform numbers for the choice, the kind of replacement, and the token.
      rate: share of all tokens of a sequence that are chosen; at least one is.
      whole_words: choose words, with all their pieces, rather than single pieces.
      mask_id: the id of [MASK].
      vocab_size: number of tokens to draw from.

    Returns:
      The new ids [tokens], and 1 at the chosen tokens, else 0 [tokens]. None of a sequence is
      chosen if every token is special, or if every word has more pieces than are to be chosen.
    """
    ordinary = kinds != SPECIAL
    begins = ordinary
    if whole_words:
        # Where a text begins inside a word, the rest of the word counts as a word.
        after_special = np.concatenate([[True], ~ordinary[:-1]])
        ends = np.cumsum(lengths)
        after_special[(ends - lengths)[lengths > 0]] = True
        begins = (kinds == START) | ((kinds == CONTINUATION) & after_special)
    places = np.flatnonzero(ordinary)
    unit = np.cumsum(begins)[places] - 1  # of each ordinary token
    first = np.flatnonzero(begins)
    chosen = _choose(
        np.bincount(unit, minlength=len(first)),
        np.repeat(np.arange(len(lengths)), lengths)[first],
        draws[0][first],
        np.maximum(1, np.rint(rate * lengths)).astype(np.int64),
    )
    places = places[chosen[unit]]
    ids, masked = input_ids.astype(np.int32), np.zeros(len(input_ids), np.int32)
    masked[places] = 1
    kind, token = draws[1][places], (draws[2][places] * vocab_size).astype(np.int32)
    ids[places] = np.where(kind < 0.8, mask_id, np.where(kind < 0.9, token, ids[places]))
    return ids, masked


def _choose(
    sizes: np.ndarray, sequences: np.ndarray, draws: np.ndarray, quotas: np.ndarray
) -> np.ndarray:
    """Choose units of each sequence in the order of their draws, until a sequence has its quota.

    Args:
      sizes: [units] tokens of each unit.
      sequences: [units] the sequence of each, ascending.
      draws: [units].
      quotas: [S] the most tokens to choose of each sequence.

    Returns:
      [units] booleans.
    """
    order = np.lexsort((draws, sequences))
    chosen, left = np.zeros(len(sizes), bool), quotas.copy()
    ends = np.searchsorted(sequences, np.arange(len(quotas)), side="right")
    place = np.concatenate([[0], ends[:-1]])
    # One unit of every sequence at a time: a word with more pieces than are left is skipped, as in
    # the original, so what is chosen depends on what was chosen before.
    open_ = np.flatnonzero(place < ends)
    while len(open_):
        units = order[place[open_]]
        fits = sizes[units] <= left[open_]
        chosen[units[fits]] = True
        left[open_[fits]] -= sizes[units[fits]]
        place[open_] += 1
        open_ = open_[(left[open_] > 0) & (place[open_] < ends[open_])]
    return chosen
