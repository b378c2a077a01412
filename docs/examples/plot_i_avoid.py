"""
"I avoid X"
===========

A wish such as "I avoid X" turns a response that resembles it from good to bad. No choice between fixed heads can
express this. Products of the wish and the response can, even for things that no training row names.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref import MixtureBradleyTerry, PairEncoder
from micropref.datasets import PreferenceTable
from micropref.embed import HashingEncoder

rng = np.random.default_rng(0)
DISHES = ["salad", "soup", "stew", "pie", "omelette", "curry", "risotto", "wrap"]
KNOWN = [
    "walnuts", "mushrooms", "shrimp", "cheese", "coriander", "olives", "beetroot", "honey", "garlic", "spinach", "lentils",
    "salmon", "ginger", "basil",
]  # fmt: skip
NEW = [
    "almonds", "leeks", "oysters", "yoghurt", "parsley", "capers", "turnips", "raisins", "onions", "kale", "chickpeas",
    "trout", "nutmeg", "rosemary",
]  # fmt: skip
AVOID = ["I avoid {}", "I never eat {}", "I cannot stand {}", "I stay away from {}"]
LOVE = ["I love {}", "I adore {}", "I am fond of {}", "I cannot get enough of {}"]


def sample(n, foods, two_wishes):
    """Two dishes for one wish, or for two wishes in one sentence; the preferred one comes first."""
    rows = []
    for _ in range(n):
        loved, avoided, other = rng.choice(foods, 3, replace=False)
        love, avoid = rng.choice(LOVE).format(loved), rng.choice(AVOID).format(avoided)
        if two_wishes:
            wish, good, bad = f"{love}, but {avoid}." if rng.random() < 0.5 else f"{avoid}, but {love}.", loved, avoided
        elif rng.random() < 0.5:
            wish, good, bad = f"{love}.", loved, other
        else:
            wish, good, bad = f"{avoid}.", other, avoided
        dish = rng.choice(DISHES)
        rows.append((f"Suggest a {dish}.", f"A {dish} with {good}.", f"A {dish} with {bad}.", wish))
    prompt, chosen, rejected, context = map(list, zip(*rows, strict=True))
    return PreferenceTable(prompt, chosen, rejected, context=context)


one, two = sample(400, KNOWN, two_wishes=False), sample(400, KNOWN, two_wishes=True)
train = PreferenceTable(
    *([*getattr(one, name), *getattr(two, name)] for name in ("prompt", "chosen", "rejected")),
    context=[*one.context, *two.context],
)
tests = {"one wish": sample(300, NEW, two_wishes=False), "two wishes": sample(300, NEW, two_wishes=True)}

# %%
# Four models are fitted to the same rows; none of these rows contains a food of the test. The gate of the second model
# reads the wish; `interactions` adds products of the wish and the response; `clauses` splits the wish at ", but".
steps = {
    "one reward": ({}, 1),
    "two heads,\ngated by the wish": ({"context": ("context",)}, 2),
    "interactions": ({"interactions": True}, 1),
    "interactions\nand clauses": ({"interactions": True, "clauses": True}, 1),
}
accuracy = {}
for name, (settings, n_heads) in steps.items():
    encoder = PairEncoder(HashingEncoder(256), **settings).fit(train)
    width = encoder.n_context_features_
    heads = MixtureBradleyTerry(n_heads, n_context_features=width, alpha=1e-3, n_init=1, random_state=0)
    heads.fit(encoder.transform(train))
    accuracy[name] = [heads.score(encoder.transform(test)) for test in tests.values()]
    shown = ", ".join(f"{kind} {value:.2f}" for kind, value in zip(tests, accuracy[name], strict=True))
    print(f"{name.replace(chr(10), ' '):30} {encoder.feature_width_:5} columns; right on new foods: {shown}")

# %%
# The reward of the same response changes its sign between two wishes, because the wish is part of the features of the
# response. Both rewards are relative to a dish without the food.
coef = heads.coef_[0]
for wish in ("I love turnips.", "I avoid turnips."):
    features = encoder.encode_responses(
        ["Suggest a soup."] * 2, ["A soup with turnips.", "A soup with kale."], [wish] * 2
    )
    print(f"{wish:18} reward of the soup with turnips {coef @ (features[0] - features[1]):+.2f} nats")

# %%
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for i, (kind, colour) in enumerate(zip(tests, ("#0072B2", "#D55E00"), strict=True)):
    values = [each[i] for each in accuracy.values()]
    places = np.arange(len(values)) + 0.38 * i - 0.19
    ax.bar(places, values, 0.36, color=colour, label=f"{kind} stated")
    for place, value in zip(places, values, strict=True):
        ax.text(place, value + 0.01, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
ax.axhline(0.5, color="#555555", linewidth=0.8, linestyle="--")
ax.set_xticks(range(len(accuracy)), list(accuracy))
ax.set_ylim(0.4, 1.05)
ax.set_ylabel("accuracy on foods never seen")
ax.legend(frameon=False, loc="upper left", fontsize=8)
