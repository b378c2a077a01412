"""
Points or clouds?
=================

A mixture assumes that every user has one of K rewards: users are K points. Tastes in food or films are different: every
user has a reward of their own, and users form a cloud. This lesson simulates both worlds. In each, a mixture and a
model of users who scatter around heads predict new users from 0 to 20 of their answers.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry

n_features, n_teachers, n_new, n_answers, n_asked = 6, 250, 150, 20, 15
rng = np.random.default_rng(0)
kinds = 2.0 * rng.normal(size=(3, n_features))


def points(n):
    """Every person has one of three rewards."""
    return kinds[rng.integers(3, size=n)]


def cloud(n):
    """Every person has a reward of their own."""
    return kinds[0] + 1.5 * rng.normal(size=(n, n_features))


def answers(people, n):
    """Differences of the features of n pairs per person, the preferred response first."""
    pairs = rng.normal(size=(len(people), n, n_features))
    margins = np.einsum("unf,uf->un", pairs, people)
    first = rng.random(margins.shape) < 1 / (1 + np.exp(-margins))
    return np.where(first, 1, -1)[..., None] * pairs


# %%
# Both models learn from the same annotators. The first world really has three heads. The second model chooses the
# number of heads, and the scatter of users around them, by the evidence of the annotators' answers.
budgets = (0, 1, 2, 5, 10, 20)
losses = {}
for world in (points, cloud):
    taught = answers(world(n_teachers), n_answers).reshape(-1, n_features)
    teacher = np.repeat(np.arange(n_teachers), n_answers)
    new = world(n_new)
    votes, asked = answers(new, max(budgets)), answers(new, n_asked).reshape(-1, n_features)
    user, asked_user = np.arange(n_new), np.repeat(np.arange(n_new), n_asked)
    models = {
        "three heads": MixtureBradleyTerry(3, random_state=0),
        "users around heads": HierarchicalBradleyTerry(random_state=0),
    }
    print(world.__doc__)
    for name, model in models.items():
        model.fit(taught, groups=teacher)
        curve = []
        for budget in budgets:
            router = ContextRouter(model).partial_fit(votes[:1, 0], groups=["another user"])
            if budget:
                router.partial_fit(votes[:, :budget].reshape(-1, n_features), groups=np.repeat(user, budget))
            curve.append(-router.log_likelihood(asked, groups=asked_user))
        losses[world.__name__, name] = curve
        print(f"  {name}: " + ", ".join(f"{loss:.3f}" for loss in curve) + " nats")
    hierarchical = models["users around heads"]
    print(f"  heads chosen by the evidence: {len(hierarchical.coef_)}, scatter {np.round(hierarchical.tau_, 2)}")
    losses[world.__name__, "own reward, known"] = [np.logaddexp(0, -np.sum(asked * new[asked_user], axis=1)).mean()]

# %%
# If users are points, both models find them, and about ten answers identify a user's head. If users are a cloud, the mixture can
# only learn which head is nearest; a posterior continues towards the user's own reward.
figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained", sharey=True)
for ax, world in zip(axes, ("points", "cloud"), strict=True):
    for name, style in (("three heads", "o-"), ("users around heads", "s-")):
        ax.plot(range(len(budgets)), losses[world, name], style, label=name)
    ax.axhline(losses[world, "own reward, known"][0], color="0.6", linewidth=1, label="own reward, known")
    ax.set_xticks(range(len(budgets)), budgets)
    ax.set_title(f"users are {'points' if world == 'points' else 'a cloud'}", fontsize=10)
    ax.set_xlabel("answers of a new user")
axes[0].set_ylabel("log-loss (nats)")
axes[0].set_ylim(bottom=min(min(curve) for curve in losses.values()) - 0.03)
axes[1].legend(fontsize=8)
# %%
# A posterior also shows how certain it is: the intervals of margins shrink with every answer.
pair, model = votes[:1, 0], models["users around heads"]
router = ContextRouter(model).partial_fit(pair, groups=["another user"])
for budget in (0, 5, 20):
    if budget:
        router.partial_fit(votes[0, :budget], groups=[f"after {budget}"] * budget)
    low, high = router.margin_interval(asked[:1], groups=[f"after {budget}"])[0]
    print(f"{budget:2d} answers: the margin of a pair is between {low:.1f} and {high:.1f} nats (95 %)")
