"""Credentials in URLs are shown and kept nowhere."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Annotated

import pytest
from synthetic_blend import write_blend

from megatron_salamandra.foundation.credentials import holds_credentials, without_credentials
from megatron_salamandra.foundation.errors import Notice, UserError
from megatron_salamandra.foundation.options import Option, Options
from salamandra_data.blend_plan import BlendPlan
from salamandra_data.errors import DataError
from salamandra_data.readers import find_inputs
from salamandra_data.storage import RemotePath, as_location

SECRETS = {
    "https://me:hunter2@host/a.jsonl": "https://***@host/a.jsonl",
    "https://hunter2@host:8080/a.jsonl": "https://***@host:8080/a.jsonl",
    "https://me:hun@ter2@host/a": "https://***@host/a",
    "https://b.s3.amazonaws.com/a.jsonl.gz?X-Amz-Date=1&X-Amz-Signature=hunter2": (
        "https://b.s3.amazonaws.com/a.jsonl.gz?X-Amz-Date=1&X-Amz-Signature=***"
    ),
    "https://h/a?X-Amz-Credential=hunter2%2F1&x=1&X-Amz-Security-Token=hunter2": (
        "https://h/a?X-Amz-Credential=***&x=1&X-Amz-Security-Token=***"
    ),
    "https://h/a?token=hunter2#part": "https://h/a?token=***",
    "https://h/a?sv=1&sig=hunter2&Expires=5": "https://h/a?sv=1&sig=***&Expires=5",
    "https://h/a?AWSAccessKeyId=hunter2&Signature=hunter2": "https://h/a?AWSAccessKeyId=***&Signature=***",
    "ftp://anonymous:hunter2@h/x": "ftp://***@h/x",
    "sftp://me:hunter2@h/x": "sftp://***@h/x",
    "s3://AKIA:hunter2@bucket/x": "s3://***@bucket/x",
    "git+https://hunter2@h/x": "git+https://***@h/x",
    "https://h/a?accessToken=hunter2&apikey=hunter2": "https://h/a?accessToken=***&apikey=***",
    "https://h/a?API_KEY=hunter2&sas_token=hunter2": "https://h/a?API_KEY=***&sas_token=***",
    "https://h/a?secretkey=hunter2&password=hunter2": "https://h/a?secretkey=***&password=***",
}
HARMLESS = [
    "abfs://container@account.dfs.core.windows.net/shards",
    "abfss://container@account.dfs.core.windows.net/shards/ca-train-00000",
    "wasbs://container@account.blob.core.windows.net/x",
    "sftp://user@host/shards/ca-train-00000",
    "ssh://user@host:22/x",
    "hdfs://user@host:8020/x",
    "github://org:repo@0123abc/shards",
    "https://h/a?author=x&tokenizer=y&monkey=z&signal=1&keyboard=us",
    "https://h/a?max_tokens=5&authority=1&passenger=2&insignia=3&assassin=4",
    "https://host/a@b/c.jsonl",
    "s3://bucket/key=5/part.jsonl",
    "optimizer.lr=3e-4: at least 0; key = 5",
    "https://h/a?page=2&lang=ca",
    "me@host",
    "a.yaml: data.tokens=5?",
]


@pytest.mark.parametrize("url", SECRETS)
def test_secrets_are_hidden_wherever_they_stand(url: str) -> None:
    hidden = without_credentials(url)
    assert hidden == SECRETS[url] and without_credentials(hidden) == hidden
    assert holds_credentials(url)
    around = f"reading '{url}' failed twice: <{url}>"
    assert "hunter2" not in without_credentials(around) and "ter2" not in without_credentials(around)
    error = UserError(f"{url}: no")
    assert "ter2" not in str(error) + repr(error) and "ter2" not in str(pickle.loads(pickle.dumps(error)))
    with pytest.warns(Notice) as caught:
        warnings.warn(f"{url}: odd", Notice, stacklevel=1)
    assert "ter2" not in str(caught[0].message)
    place = as_location(url)
    assert isinstance(place, RemotePath) and place.url == url.rstrip("/")
    assert "ter2" not in f"{place} {place!r} {place.parent} {place.with_name('x')} {place / 'y'}"


def test_a_scheme_may_be_in_capitals_or_behind_another() -> None:
    assert without_credentials("HTTPS://hunter2@h/x") == "HTTPS://***@h/x"
    assert without_credentials("ABFSS://c@account/x") == "ABFSS://c@account/x"
    assert without_credentials("zip://a::https://me:pw@h/x") == "zip://a::https://***@h/x"
    assert without_credentials("zip://a::abfs://c@account/x") == "zip://a::abfs://c@account/x"


@pytest.mark.parametrize("text", HARMLESS)
def test_all_else_stays_as_it_is(text: str) -> None:
    assert without_credentials(text) == text and not holds_credentials(text)


def test_reports_of_options_hold_no_credentials() -> None:
    class Given(Options):
        input: Annotated[tuple[str, ...], Option("text")]

    report = Given(input=("https://me:hunter2@h/a", "b")).report()
    assert report == {"input": ["https://***@h/a", "b"]}


def test_a_name_is_that_of_the_object_and_a_signed_url_is_no_pattern() -> None:
    place = RemotePath("https://h/corpus/a.jsonl.gz?X-Amz-Signature=a%2Fb/c")
    assert (place.name, place.suffix) == ("a.jsonl.gz", ".gz")


def test_a_missing_object_is_named_without_its_credentials(tmp_path: Path) -> None:
    for url in ("http://me:hunter2@127.0.0.1:9/a.jsonl", "nosuch://me:hunter2@h/a.jsonl?token=hunter2"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("salamandra_data.storage.retries.ATTEMPTS", 1)
            with pytest.raises(DataError) as caught:
                find_inputs([url], out=tmp_path)
        assert "hunter2" not in str(caught.value) and "***@" in str(caught.value)


def with_shard(plan: BlendPlan, url: str) -> BlendPlan:
    """The plan, whose first shard lies there."""
    (source, *others) = plan.sources
    shard = dataclasses.replace(source.shards[0], path=RemotePath(url))
    return dataclasses.replace(plan, sources=(dataclasses.replace(source, shards=(shard,)), *others))


@pytest.mark.parametrize("url", [*SECRETS, "https://***@h/x"])
def test_no_plan_keeps_them(tmp_path: Path, url: str) -> None:
    plan = BlendPlan.load(write_blend(tmp_path))
    with pytest.raises(DataError, match="credentials of this URL"):
        with_shard(plan, url).save(tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


@pytest.mark.parametrize("url", [text for text in HARMLESS if "://" in text])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_plan_keeps_any_other_url_as_it_is(tmp_path: Path, url: str, absolute: bool) -> None:
    plan = with_shard(BlendPlan.load(write_blend(tmp_path)), url)
    (plan.freeze if absolute else plan.save)(tmp_path / "other.yaml")
    assert BlendPlan.parse(tmp_path / "other.yaml").sources[0].shards[0].path == RemotePath(url)
