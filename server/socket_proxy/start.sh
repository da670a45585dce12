#!/bin/bash
# Writes the settings (environment variables) into nginx's configuration and becomes nginx.
set -euo pipefail

fail() {
    echo "socket proxy: $1" >&2
    exit 64
}

case ${ENGINE} in
    unix:///*) ENGINE_SERVER=unix:${ENGINE#unix://} ;;
    tcp://*) ENGINE_SERVER=${ENGINE#tcp://} ;;
    *) fail "ENGINE=${ENGINE}: neither unix:///path/of/the/socket nor tcp://host:port" ;;
esac
[[ ${ENGINE_SERVER} =~ ^[A-Za-z0-9._:/@+-]+$ ]] || fail "ENGINE=${ENGINE}: only letters, digits and . _ : / @ + - are allowed"
for name in ORDINARY_SECONDS QUIET_SECONDS; do
    [[ ${!name} =~ ^[1-9][0-9]{0,7}$ ]] || fail "${name}=${!name}: not a number of seconds"
done
# like NUMERAI_CONTAINER_USER of the pipeline: without a group, or with root's, the group id is the user id
[[ ${CONTAINER_USER} =~ ^([1-9][0-9]*)(:0)?$ ]] && CONTAINER_USER=${BASH_REMATCH[1]}:${BASH_REMATCH[1]}
[[ ${CONTAINER_USER} =~ ^([1-9][0-9]*:[1-9][0-9]*)?$ ]] || fail "CONTAINER_USER=${CONTAINER_USER}: not of the form uid:gid, and never root"
if [[ ${ENGINE_SERVER} == unix:* ]]; then
    socket=${ENGINE_SERVER#unix:}
    [[ -S ${socket} ]] || fail "there is no socket at ${socket}: mount the engine's socket there"
    SOCKET_GROUP=$(stat --dereference --format=%g "${socket}")
    if ! [[ -r ${socket} && -w ${socket} ]]; then
        fail "user $(id --user), groups $(id --groups), may not use ${socket} of group ${SOCKET_GROUP}: add that group (group_add; DOCKER_GID in .env)"
    fi
else
    SOCKET_GROUP=0
fi
export ENGINE_SERVER SOCKET_GROUP CONTAINER_USER

envsubst '${ENGINE_SERVER} ${ORDINARY_SECONDS} ${QUIET_SECONDS}' \
    < /opt/socket_proxy/nginx.conf.template > /tmp/nginx.conf
exec /usr/sbin/nginx -c /tmp/nginx.conf
