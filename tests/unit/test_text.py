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
        ("s3://key:se/cret@bucket/x: cannot be reached", "s3://***@bucket/x: cannot be reached"),
        ("s3://key:/se+cret/@bucket", "s3://***@bucket"),
        ("s3://key:80/cret@bucket", "s3://***@bucket"),
        ("http://me:p#w@host/a http://me:p?w@host/b", "http://***@host/a http://***@host/b"),
        ("http://me:my s3cret@host/a", "http://***@host/a"),
        ("http://me:my s3@ cret@host/a", "http://***@host/a"),
        ("me:s3cret@host/api", "***@host/api"),
        ("PREFECT_API_URL is me:s3/c:r@t@host", "PREFECT_API_URL is ***@host"),
        ("http:/me:s3cret@host", "http:/***@host"),
        ("http:///me:s3cret@host", "http:///***@host"),
        ("http:me:s3cret@host", "***@host"),
        ("https://h/a#token=s3cret", "https://h/a#token=***"),
        ("https://h/a#s3cret.", "https://h/a#***."),
        ("https://h/a;token=s3cret;v=1/b; see b", "https://h/a;token=***;v=***; see b"),
        ("https://h/a;token=s3cret?k=s3cret;l=s3cret#t=s3cret", "https://h/a;token=***?k=***;l=***#t=***"),
        ("https://h/a?b=s3cret;c=s3cret", "https://h/a?b=***;c=***"),
        ("zip://a.png::s3://k:s/3@b/x.zip::http://k:s/3@h", "zip://a.png::s3://***@b/x.zip::http://***@h"),
        ("mail me@host at 12:30@x, 1:02:03@x; mailto:me@host", "mail me@host at 12:30@x, 1:02:03@x; mailto:me@host"),
        ("edit@toy: done, bulk_edit/hats@0a1b: a@b", "edit@toy: done, bulk_edit/hats@0a1b: a@b"),
        (r"C:\\me\\a@2x.png, C:/me/a@2x.png, x/a.zip:a@2x.png", r"C:\\me\\a@2x.png, C:/me/a@2x.png, x/a.zip:a@2x.png"),
        ("http://[::1]:4200/a@b", "http://[::1]:4200/a@b"),
        ("no answer at http://host:80: ask a@b", "no answer at http://host:80: ask a@b"),
        ("s3://bucket/a: no such folder; ask a@b", "s3://bucket/a: no such folder; ask a@b"),
    ],
)  # fmt: skip
def test_secrets_of_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert masked(shown) == shown
    assert masked_values({"a": [text, 1, None], "b": {"c": (text,)}}) == {"a": [shown, 1, None], "b": {"c": [shown]}}
