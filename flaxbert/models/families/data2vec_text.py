"""data2vec for text: RoBERTa's encoder, trained to predict the hidden states of a teacher.

Baevski et al. 2022, arXiv:2202.03555. The teacher is an average of the encoder's own weights over
the last steps. Its output layers are those of RoBERTa.
"""

from flaxbert.models.families import roberta

FAMILY = roberta.family({"data2vec-text": "Data2VecText"}, "data2vec_text")
