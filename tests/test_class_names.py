"""Classes that Hugging Face keeps as numbers mean their names: 0 may be "a", which is the first response."""

from __future__ import annotations

import datasets as hf_datasets
import pyarrow as pa
import pyarrow.feather
import pytest

from micropref import read_preferences
from micropref.datasets import MalformedRowError

TEXTS = {"prompt": "tea?", "response_a": "yes", "response_b": "no"}


def data_of(label_names, labels, user_names=("eve", "adam")):
    values = dict.fromkeys(TEXTS, hf_datasets.Value("string"))
    classes = {"label": hf_datasets.ClassLabel(names=label_names), "user": hf_datasets.ClassLabel(names=user_names)}
    columns = {name: [text] * len(labels) for name, text in TEXTS.items()}
    users = [i % len(user_names) for i in range(len(labels))]
    return hf_datasets.Dataset.from_dict(
        columns | {"label": labels, "user": users}, features=hf_datasets.Features(values | classes)
    )


def as_parquet(data, path):
    data.to_parquet(path / "data.parquet")
    return path / "data.parquet"


def as_folder(data, path):
    data.save_to_disk(path / "data")
    return path / "data"


def as_feather(data, path):
    pa.feather.write_feather(data.data.table, path / "data.feather")
    return path / "data.feather"


KEPT = {
    "data set": lambda data, path: data,
    "stream": lambda data, path: data.to_iterable_dataset(),
    "arrow": lambda data, path: data.data.table,
    "parquet": as_parquet,
    "feather": as_feather,
    "folder": as_folder,
}


@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("names", [["a", "b", "tie"], ["tie", "b", "a"], ["b", "a"]])
def test_numbers_of_classes_are_read_as_their_names(keep, names, tmp_path):
    labels = list(range(len(names)))
    rows = [TEXTS | {"label": names[i], "user": ("eve", "adam")[i % 2]} for i in labels]
    assert read_preferences(keep(data_of(names, labels), tmp_path)) == read_preferences(rows)


@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
def test_a_name_without_a_meaning_is_refused_by_name(keep, tmp_path):
    with pytest.raises(MalformedRowError, match="got the label 'dull'"):
        read_preferences(keep(data_of(["dull", "fine"], [0, 1]), tmp_path))


def test_a_class_that_is_missing_is_no_label():
    with pytest.warns(UserWarning, match="1 no label"):
        table = read_preferences(data_of(["a", "b"], [1, -1]), skip_bad=True)
    assert table.chosen == ["no"]


@pytest.mark.parametrize("metadata", [b"", b"{}", b"[]", b'{"info": {"features": {"label": {}}}}'])
def test_metadata_of_other_programs_is_passed_over(metadata):
    rows = [TEXTS | {"label": 1}, TEXTS | {"label": 0}]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({b"huggingface": metadata})
    assert read_preferences(table) == read_preferences(rows)
