"""The errors of the first hour with their exact words: *When something fails* lists them, and a test makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# situation → the words, in a checkout in /home/anna/numerai
FIRST_HOUR_ERRORS = {
    "No Docker engine": """\
✗ Docker engine   there is no Docker engine on this machine
  Install Debian's:  sudo apt-get install --no-install-recommends docker.io iptables
  and join its group, then log in again:  sudo usermod --append --groups docker $USER""",
    "No Docker engine, and NO_INSTALL=1": """\
✗ Docker engine   there is no Docker engine on this machine, and NO_INSTALL forbids its installation
  Install Debian's yourself:  apt-get install --no-install-recommends docker.io iptables
  or omit NO_INSTALL to have the launcher install it.""",
    "A Docker engine that does not run": """\
✗ Docker engine   a Docker engine is installed but not running
  Start it:  sudo systemctl start docker""",
    "No rights on the socket": """\
✗ Docker engine   the engine at unix:///var/run/docker.sock refuses access to this user
  Join its group, then log in again:  sudo usermod --append --groups docker $USER""",
    "The port is taken": """\
· Airflow         port 8080 is taken: using 8081""",
    "A hundred ports are taken": """\
✗ Airflow         PORT=8080: this port and the next 99 are taken
  Choose a free one:  PORT=…""",
    "The disk is full, in a step of the launcher": """\
✗ Not done        no space is left on the volume of /home/anna/numerai (No space left on device): make room there and\
 try again""",
    "The disk is full, in a task": """\
unpacking dataset.zip needs 1,000.0 MB on the volume of /home/anna/numerai/data, but only 12.0 MB are free: make room\
 there and try again""",
    "No network, in a task": """\
https://api-tournament.numer.ai: cannot be reached (Failed to establish a new connection: [Errno 111] Connection\
 refused): check the network of this machine, and HTTPS_PROXY behind a proxy""",
    "No network, for Debian's packages": """\
✗ Docker engine   apt-get could not install docker.io
  E: Unable to fetch some archives
  The full log: /home/anna/numerai/.cache/logs/apt.log
  Check the network and Debian's sources (apt-get update), then try again.""",
    "No network, for the base images": """\
✗ Base image      python:3.12-slim-bookworm is not available, so these images cannot be built: classic, networks
  No container registry is reachable (the base image could not be pulled), and an offline image could not be built:
  there is no CPython 3.12 on this machine for an offline image
  Looked on PATH, in pyenv's versions, in uv's pythons and in /usr/local.
  Install one, for instance with `uv python install 3.12` or `pyenv install 3.12`, or provide access to a registry.""",
    "Another file than a zip": """\
dataset.zip: not a zip archive (it begins with b'<!DOCTYPE html><'): set a zip of the classic layout""",
    "A zip that does not exist": """\
✗ Wrong option    ARCHIVE=/home/anna/numerai/dataset.zip: there is no file /home/anna/numerai/dataset.zip
  The descriptions of all options: make help""",
    "A zip of which the end is missing": """\
dataset.zip: the zip is truncated after 1,000 bytes (its end is missing): download it again""",
    "Wrong keys": """\
https://api-tournament.numer.ai: the Numerai keys were refused (Not authenticated (not_authenticated)): they are wrong,\
 expired or revoked; check the connection numerai_default (numerai_practice for the simulated tournament), or\
 NUMERAI_PUBLIC_ID and NUMERAI_SECRET_KEY""",
    "No keys": """\
this call needs the Numerai keys: set NUMERAI_PUBLIC_ID and NUMERAI_SECRET_KEY""",
    "A wrong parameter": """\
✗ Wrong option    MODELS=svn: 'svn' is not a model (did you mean svm?); choose from svm, xgboost
  AUTOML_MINUTES=0: input should be greater than or equal to 1. Search time of each AutoML model: 1 minute to 3 days.
  The descriptions of all options: make help""",
    "An unknown parameter": """\
✗ Wrong option    make up has no option PROT (did you mean PORT?)
  The options of make up: NO_INSTALL, CALENDAR, PORT
  The descriptions of all options: make help""",
    "An image that cannot be built": """\
✗ Model images    the image classic could not be built
  ERROR: Could not find a version that satisfies numpy==2.4
  The full log: /home/anna/numerai/.cache/logs/build-classic.log
  Remove the cause (often the network or a full disk) and try again; finished images are kept.""",
    "A machine with one core": """\
· Machine         NUMERAI_CORES is 1: the models run one after another; a machine with two or more cores takes less\
 time""",
    "A Python that is too old": """\
✗ Environment     there is neither Python 3.12 nor 3.11 on this machine (python3 is Python 3.9.18)
  Install it with: sudo apt-get install python3 python3-venv
  (as root and without NO_INSTALL=1 the launcher installs it)""",
}


def first_hour_errors() -> Iterator[str]:
    """Give the lines of the list of errors."""
    for situation, words in FIRST_HOUR_ERRORS.items():
        yield from (f"**{situation}**", "", "```text", *words.splitlines(), "```", "")
