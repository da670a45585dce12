#!/bin/bash
# Checks that the engine is reachable through the proxy.
set -euo pipefail

exec 3<>/dev/tcp/127.0.0.1/2375
printf 'GET /_ping HTTP/1.0\r\n\r\n' >&3
read -r status <&3
[[ ${status} == *' 200 '* ]]
