"""The addresses whose headers the API server of docker-compose.yaml trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.airflow.api_server import network_of, trusted_addresses

if TYPE_CHECKING:
    from pathlib import Path

# of a container in the networks 172.20.0.0/16 (its way out) and 172.21.4.0/24
ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	010014AC	0003	0	0	0	00000000	0	0	0
eth1	000014AC	00000000	0001	0	0	0	0000FFFF	0	0	0
eth0	000415AC	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""


@pytest.mark.parametrize(
    ("address", "network"),
    [("172.21.4.3", "172.21.4.0/24"), ("172.20.9.9", "172.20.0.0/16"), ("10.1.2.3", None)],
)
def test_network_of_finds_the_connected_network(address: str, network: str | None) -> None:
    assert network_of(address, ROUTES) == network


def test_only_the_network_of_the_reverse_proxy_is_trusted(tmp_path: Path) -> None:
    from uvicorn.middleware.proxy_headers import _TrustedHosts

    routes = tmp_path / "route"
    routes.write_text(ROUTES)
    # a name that resolves to an address of the network, as docker-compose.yaml has one
    trusted = _TrustedHosts(trusted_addresses("", "172.21.4.3", routes))
    assert "172.21.4.2" in trusted
    assert "172.20.0.1" not in trusted
    further = _TrustedHosts(trusted_addresses("10.0.0.7,10.1.0.0/16", "172.21.4.3", routes))
    assert all(address in further for address in ("172.21.4.2", "10.0.0.7", "10.1.5.5"))


def test_without_the_network_nothing_but_the_setting_is_trusted(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text(ROUTES)
    assert trusted_addresses("", "no-such-name.invalid", routes) == "127.0.0.1"
    assert trusted_addresses("10.0.0.7", "no-such-name.invalid", routes) == "10.0.0.7"


def test_any_address_is_never_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    routes = tmp_path / "route"
    routes.write_text(ROUTES)
    assert trusted_addresses("*", "172.21.4.3", routes) == "172.21.4.0/24"
    assert trusted_addresses("*, 10.0.0.7", "no-such-name.invalid", routes) == "10.0.0.7"
    assert "FORWARDED_ALLOW_IPS=* is ignored" in capsys.readouterr().out
