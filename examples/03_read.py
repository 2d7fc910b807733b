"""Read regions, and see which ones a text passes through.

python examples/03_read.py [FOLDER] [TEXT]
"""

import sys

import exemplars as ex

DEFAULTS = ["example-l15-p5", "My fellow citizens, the state of our union is strong."]
folder, text = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]

dictionary = ex.load(folder)
print(dictionary)

# The largest regions, by what founded them and by their nearest members in context.
for number in dictionary.counts.argsort()[::-1][:3]:
    region = dictionary.region(int(number))
    print(f"\nregion {number}: {region.count} members, coherence {region.coherence:.2f}")
    for member in region.contexts[:3]:
        print(f"  {member.name!r}: {member.before[-30:]!r} [{member.text!r}] {member.after[:10]!r}")

# What a direction reads as through the model's final norm and unembedding.
model = ex.load_model(dictionary.provenance["model"]["name"])
lens = ex.logit_lens(model, dictionary.exemplars[:3], k=5)
for number, tokens in enumerate(lens.promoted_tokens):
    print(f"region {number} promotes {tokens}")

# Token by token: the region, and how far away; above 1 the token lies outside every region.
for trace in ex.trace(dictionary, model, ex.texts([text])):
    for token, number, distance in zip(
        trace.tokens(), trace.region, trace.distance_in_thresholds, strict=True
    ):
        print(f"{token!r:>16}  region {number:>5}  {distance:.2f} θ")
