"""What is secret in an address is not shown, and the rest of it is."""

from __future__ import annotations

import pytest

from boundaryflow.text import masked, masked_values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:s3cret@host/faces", "http://***@host/faces"),
        ("ftp://s3cret@host", "ftp://***@host"),
        ("http://me:s3@s3cret::'x@host:80/a", "http://***@host:80/a"),
        ("zip://a.png::http://me:s3cret@host/x.zip", "zip://a.png::http://***@host/x.zip"),
        ("https://b.s3.com/a?X-Amz-Signature=s3cret&s3cret#s3cret", "https://b.s3.com/a?X-Amz-Signature=***&***#***"),
        ("inbox http://h/a?token=s3cret: cannot be reached", "inbox http://h/a?token=***: cannot be reached"),
        ("404, url='http://me:s3cret@h/a?k=s3cret'), twice: http://s3cret@h", "404, url='http://***@h/a?k=***'), twice: http://***@h"),
        ("s3://bucket/a@b/c d@e ?x=y", "s3://bucket/a@b/c d@e ?x=y"),
        ("http://host:80/a", "http://host:80/a"),
    ],
)  # fmt: skip
def test_secrets_of_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown
    assert masked_values({"a": [text, 1, None], "b": {"c": (text,)}}) == {"a": [shown, 1, None], "b": {"c": [shown]}}
