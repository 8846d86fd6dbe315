"""Pairs of role and token: as text, as a file, and that no message says a token."""

from __future__ import annotations

import pathlib

import pytest

from regstream import credentials

SECRET = "s3cret-token-of-someone"


def pairs(found: tuple[credentials.Token, ...]) -> list[tuple[str, str]]:
    return [(one.role, one.secret.get_secret_value()) for one in found]


@pytest.mark.parametrize("text", ["read:a,admin:b", "read:a admin:b", " read:a ,\n admin:b ", "read:a\tadmin:b"])
def test_pairs_are_separated_by_spaces_or_commas(text: str) -> None:
    assert pairs(credentials.parse(text)) == [("read", "a"), ("admin", "b")]


@pytest.mark.parametrize("secret", ["a:b", "a+b/c==", "~!#$%&'()*<>?@[]^_`{|}-.", "x" * 512])
def test_what_a_token_may_be(secret: str) -> None:
    assert pairs(credentials.parse(f"control:{secret}")) == [("control", secret)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{SECRET}", "pair 1 has no role"),
        (f"read:ok root:{SECRET}", "pair 2 has no role"),
        (f"READ:{SECRET}", "pair 1 has no role"),
        (f":{SECRET}", "pair 1 has no role"),
        ("read:", "the token of pair 1 cannot be used"),
        (f"read:ok,control:{SECRET};", "the token of pair 2 cannot be used"),
        (f'read:"{SECRET}"', "the token of pair 1 cannot be used"),
        (f"read:{SECRET}é", "the token of pair 1 cannot be used"),
        ("read:" + SECRET * 30, "the token of pair 1 cannot be used"),
        (f"read:{SECRET} control:{SECRET}", "token 2 was given another role"),
        ("", "pair 1 has no role"),
    ],
)
def test_what_is_no_pair_is_named_by_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        credentials.parse(text)
    assert SECRET not in str(caught.value)


def test_the_same_pair_twice_is_no_contradiction() -> None:
    assert len(credentials.parse("read:a read:a")) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no token"),
        (b"# nothing\n\n", "holds no token"),
        (b"read:" + SECRET.encode() + b"\n\nadmin", "line 3 has no role"),
        (b"read:a b\n", "the token of line 1"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"#" * 70_000, "larger than 64 kB"),
    ],
)
def test_a_file_that_is_none_says_where(tmp_path: pathlib.Path, content: bytes, said: str) -> None:
    (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        credentials.read(str(tmp_path / "tokens"))
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: pathlib.Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(ValueError, match=why):
            credentials.read(str(path))


def test_each_role_may_do_what_those_before_it_may() -> None:
    able = {role: [one for one in credentials.ROLES if credentials.may(role, one)] for role in credentials.ROLES}
    assert able == {"read": ["read"], "control": ["read", "control"], "admin": ["read", "control", "admin"]}
