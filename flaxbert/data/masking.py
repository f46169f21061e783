"""Masked words: the choice of tokens that a masked language model predicts, and their replacement.

BERT paper, section 3.1 and appendix A.1; `create_masked_lm_predictions` of google-research/bert.
"""

import numpy as np

SPECIAL, START, CONTINUATION = 0, 1, 2
"""Kinds of tokens: [CLS] and [SEP]; the first piece of a word; a further piece."""


def mask(
    input_ids: np.ndarray,
    kinds: np.ndarray,
    draws: np.ndarray,
    *,
    rate: float,
    whole_words: bool,
    mask_id: int,
    vocab_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens and replace them: 80 % by [MASK], 10 % by a random token, 10 % stay.

    Args:
      input_ids: [length].
      kinds: [length], SPECIAL, START or CONTINUATION.
      draws: [3, length] uniform numbers for the choice, the kind of replacement, and the token.
      rate: share of all tokens that are chosen; at least one is.
      whole_words: choose words, with all their pieces, rather than single pieces.
      mask_id: the id of [MASK].
      vocab_size: number of tokens to draw from.

    Returns:
      The new ids [length], and 1 at the chosen tokens, else 0 [length]. None is chosen if every
      token is special, or if every word has more pieces than are to be chosen.
    """
    # Where a text begins inside a word, the rest of the word counts as a word.
    after_special = np.concatenate([[True], kinds[:-1] == SPECIAL])
    starts = (kinds == START) | ((kinds == CONTINUATION) & after_special)
    units = np.cumsum(starts) if whole_words else np.arange(1, len(kinds) + 1)
    units = np.where(kinds == SPECIAL, 0, units)
    names, first, sizes = np.unique(units, return_index=True, return_counts=True)
    quota = max(1, round(rate * len(input_ids)))
    chosen, count = [], 0
    for unit in np.argsort(draws[0][first], kind="stable"):
        if names[unit] == 0:
            continue
        # A word with more pieces than remain is skipped, as in the original.
        if count + sizes[unit] <= quota:
            chosen.append(names[unit])
            count += sizes[unit]
    masked = np.isin(units, chosen) & (units > 0)
    replaced = np.where(draws[1] < 0.8, mask_id, (draws[2] * vocab_size).astype(np.int32))
    replaced = np.where(draws[1] < 0.9, replaced, input_ids)
    return np.where(masked, replaced, input_ids).astype(np.int32), masked.astype(np.int32)
