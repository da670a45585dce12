"""Becomes Airflow's API server, which trusts the headers of the reverse proxy of ``docker-compose.yaml`` only.

``python -m server.airflow.api_server --proxy-headers``; the arguments are those of ``airflow api-server``. Headers such
as ``X-Forwarded-For`` name the client of a reverse proxy; from another sender they would be forged. Only the reverse
proxy is in the network ``tls`` beside the API server, so the network of that name's address is trusted, whatever
address Docker has given it. ``FORWARDED_ALLOW_IPS`` of ``.env`` adds other reverse proxies.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

VARIABLE = "FORWARDED_ALLOW_IPS"
"""The variable of uvicorn, Airflow's web server."""
OWN_NAME = "api-server.tls"
"""The API server's name in the network ``tls`` (``docker-compose.yaml``)."""
ROUTES = Path("/proc/net/route")
LOCAL = "127.0.0.1"
ANY = "*"


def network_of(address: str, routes: str) -> str | None:
    """Find the network that an address of this container belongs to.

    Parameters
    ----------
    address : str
        An IPv4 address.
    routes : str
        Content of ``/proc/net/route``: for each route, hexadecimal in the machine's byte order, its network, gateway
        and mask.

    Returns
    -------
    str or None
        Such as ``172.20.0.0/16``; None if no directly connected network has the address.
    """
    for line in routes.splitlines()[1:]:
        fields = line.split()
        network, gateway, mask = (int(fields[number], 16).to_bytes(4, sys.byteorder) for number in (1, 2, 7))
        connected = ipaddress.ip_network(f"{ipaddress.ip_address(network)}/{ipaddress.ip_address(mask)}")
        if not any(gateway) and connected.prefixlen and ipaddress.ip_address(address) in connected:
            return str(connected)
    return None


def trusted_addresses(further: str, name: str = OWN_NAME, routes: Path = ROUTES) -> str:
    """List the addresses whose headers are trusted, comma-separated.

    Parameters
    ----------
    further : str
        Those of the setting.
    name : str
        The name of this container in the proxy's network; without such a network only the setting counts.
    routes : Path
        The kernel's table of routes.
    """
    try:
        network = network_of(socket.gethostbyname(name), routes.read_text())
    except OSError:
        network = None
    named = [each.strip() for each in further.split(",")]
    if ANY in named:
        # the default of earlier releases, which is still in their .env
        print(f"{VARIABLE}={ANY} is ignored: name the addresses of further reverse proxies in .env", flush=True)
    # never empty: uvicorn would then trust its own default
    return ",".join(filter(None, [network, *(each for each in named if each != ANY)])) or LOCAL


def main() -> None:
    """Set the variable, then become the API server."""
    os.environ[VARIABLE] = trusted_addresses(os.environ.get(VARIABLE, ""))
    print(f"headers of reverse proxies are trusted from {os.environ[VARIABLE]}", flush=True)
    os.execvp("airflow", ["airflow", "api-server", *sys.argv[1:]])  # noqa: S606 - it becomes this program


if __name__ == "__main__":
    main()
