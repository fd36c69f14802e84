"""Addresses on the network: read with --remote only, and never from a link-local host. No test uses the network."""

import socket
from pathlib import Path

import pytest

import demiglace
from demiglace.data.text import addresses
from demiglace.data.text.addresses import check_addresses
from demiglace.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror("no network in tests")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", refuse)


REMOTE = ["s3://bucket/a.jsonl", "https://example.org/a.txt", "gs://b/*.parquet", "az://c/x", "hf://datasets/a/b.txt"]


@pytest.mark.parametrize("address", REMOTE)
def test_addresses_on_the_network_need_the_option(address: str) -> None:
    with pytest.raises(ConfigError, match=r"read only with --remote"):
        check_addresses(["here.txt", "file:///here.txt", address], remote=False)
    check_addresses([address], remote=True)
    check_addresses(["here.txt", "file:///here.txt", "dir/*.txt"], remote=False)


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "169.254.170.2:80", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"),
        *("[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[::ffff:169.254.169.254]", "[FD00:EC2:0:0::254]"),
        *("metadata.google.internal", "METADATA.google.internal.", "metadata", "100.100.100.200"),
        *(
            "user:password@169.254.169.254",
            "169.254.169.254\\@example.org",
            "%31%36%39.254.169.254",
            "１６９.254.169.254",
        ),
        *("169.254.169.254 ", "", "[::1"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https", "s3"])
def test_link_local_hosts_are_refused(scheme: str, host: str) -> None:
    with pytest.raises(DataError, match=r"link-local|no plain host|is no address"):
        check_addresses([f"{scheme}://{host}/latest/meta-data/a.txt"], remote=True)


def test_names_of_link_local_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"a.example.org": "169.254.169.254", "b.example.org": "93.184.216.34"}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda host, _: [(2, 1, 6, "", (found[host], 0))])
    check_addresses(["https://b.example.org/a.txt"], remote=True)
    with pytest.raises(DataError, match="link-local"):
        check_addresses(["https://a.example.org/a.txt"], remote=True)


@pytest.mark.parametrize("option", ["sources", "decontaminate_against"])
def test_clean_refuses_them_before_anything_is_read(tmp_path: Path, option: str) -> None:
    (tmp_path / "x.txt").write_text("text")
    given = {"sources": [str(tmp_path / "x.txt")], "output": tmp_path / "o"}
    with pytest.raises(ConfigError, match="read only with --remote"):
        demiglace.clean(**given | {option: ["s3://bucket/x.txt"]})
    with pytest.raises(DataError, match="link-local"):
        demiglace.clean(**given | {option: ["http://169.254.169.254/x.txt"], "remote": True})
    assert not (tmp_path / "o").exists()
