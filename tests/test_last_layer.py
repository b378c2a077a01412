"""docs/last_layer.md once more: groups tell the heads apart there, and permuted groups do not."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from test_docs import ROOT, blocks_of


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> dict[str, Any]:
    """The functions of the page, before anything is trained."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of((ROOT / "docs/last_layer.md").read_text(encoding="utf-8")):
        if block.language == "python":
            exec(re.split(r"^(?:data|with_groups) =", block.content, flags=re.M)[0], namespace)
            if "accuracy" in namespace:
                return namespace
    raise AssertionError("the page defines no accuracy")


def nats(page: dict[str, Any], model: Any) -> float:
    """Mean log-likelihood per pair of new annotators."""
    new = page["collate"](page["annotators"](200, seed=1))
    with torch.no_grad():
        X = model.differences(new["chosen"], new["rejected"])
    return float(model.likelihood.to_estimator().log_likelihood(X.numpy(), groups=new["annotator"].numpy()))


@pytest.mark.slow
def test_groups_matter_and_permuted_groups_do_not(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, per = page["annotators"](300, seed=0), page["N_PAIRS"]
    permuted = np.random.default_rng(0).permutation(np.repeat(np.arange(len(data)), per)).reshape(len(data), per)
    ways = {
        "groups": data,
        "none": [{**each, "annotator": torch.full((per,), -1)} for each in data],
        "permuted": [{**each, "annotator": torch.tensor(own)} for each, own in zip(data, permuted, strict=True)],
    }
    models = {name: page["train"](rows) for name, rows in ways.items()}
    accuracy = {name: page["accuracy"](model) for name, model in models.items()}
    likelihood = {name: nats(page, model) for name, model in models.items()}
    for other in ("none", "permuted"):
        assert accuracy["groups"] > accuracy[other] + 0.03
        assert likelihood["groups"] > likelihood[other] + 0.03
    assert abs(accuracy["permuted"] - accuracy["none"]) < 0.03
    assert abs(likelihood["permuted"] - likelihood["none"]) < 0.02

    page["set_seed"](0)
    start = page["Preferences"]().body
    for model in models.values():  # the last layer has learned, and none below it
        unchanged = [
            torch.equal(layer.mlp.up_proj.weight, before.mlp.up_proj.weight)
            for layer, before in zip(model.body.layers, start.layers, strict=True)
        ]
        assert unchanged == [True, False]
