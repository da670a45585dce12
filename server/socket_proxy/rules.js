// The rules of the proxy: it passes only the pipeline's calls, for the pipeline's containers.
//
// No request is passed unchanged. The proxy parses a call and rebuilds it from the parsed parts, so that nginx and the
// engine cannot interpret the same bytes differently. Docker's API: https://docs.docker.com/reference/api/engine/

import fs from 'fs';

// Model containers may mount only the volume that is mounted here in the proxy's container.
const DATA = '/data';
const LABEL = 'numerai';
const ID = '[A-Za-z0-9][A-Za-z0-9_.-]*';
// registry, path and tag of an image; no part of its path can be `..`
const PART = '[a-z0-9]+(?:[._-]+[a-z0-9]+)*';
const IMAGE = `${PART}(?::[0-9]+)?(?:/${PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?`;

// method, path, allowed parameters (some with one value only); `of`: allowed containers; `quiet`: the call may take long
const CALLS = [
    {method: 'GET', path: /^\/_ping$/, parameters: []},
    {method: 'HEAD', path: /^\/_ping$/, parameters: []},
    {method: 'GET', path: /^\/version$/, parameters: []},
    {method: 'GET', path: /^\/images\/json$/, parameters: ['only_ids', 'all', 'filters', 'filter', 'digests']},
    {method: 'GET', path: new RegExp(`^/images/${IMAGE}/json$`), parameters: []},
    {method: 'POST', path: /^\/images\/create$/, parameters: ['fromImage', 'tag', 'platform'], quiet: true},
    {method: 'GET', path: /^\/containers\/json$/, parameters: ['all', 'limit', 'size', 'trunc_cmd', 'filters'], lists: true},
    {method: 'POST', path: /^\/containers\/create$/, parameters: [], creates: true},
    {method: 'GET', path: new RegExp(`^/containers/(${ID})/json$`), parameters: ['size'], of: 'ours or Airflow'},
    {method: 'POST', path: new RegExp(`^/containers/(${ID})/start$`), parameters: [], of: 'ours'},
    {method: 'GET', path: new RegExp(`^/containers/(${ID})/logs$`), of: 'ours', quiet: true,
     parameters: ['stderr', 'stdout', 'timestamps', 'follow', 'tail', 'since', 'until']},
    {method: 'POST', path: new RegExp(`^/containers/(${ID})/wait$`), parameters: ['condition'], of: 'ours', quiet: true},
    {method: 'DELETE', path: new RegExp(`^/containers/(${ID})$`), parameters: ['v', 'force', 'link=False'], of: 'ours'},
];

function refusal(message, status) {
    const error = new Error(message);
    error.status = status || 403;
    return error;
}

async function decide(r) {
    try {
        await pass(r);
    } catch (error) {
        const known = error.status !== undefined;
        const message = `socket proxy: ${known ? error.message : 'this call could not be validated'}`;
        if (!known) {
            r.error(`${error}`);
        }
        r.variables.refusal = message;
        answer(r, known ? error.status : 500, JSON.stringify({message: message}));
    }
}

async function pass(r) {
    const uri = r.variables.request_uri;
    const parts = /^(\/v[0-9]+\.[0-9]+)?(\/[A-Za-z0-9_.:\/-]*)(?:\?(.*))?$/.exec(uri);
    const call = parts && CALLS.find(each => each.method === r.method && each.path.test(parts[2]));
    if (!call) {
        throw refusal(`${r.method} ${uri.split('?')[0]} is not among the Docker calls that the pipeline makes`);
    }
    const version = parts[1] || '';
    const parameters = readParameters(call, parts[2], parts[3] || '');
    if (call.creates) {
        await create(r, version);
        return;
    }
    if (call.lists) {
        parameters.filters = onlyOurs(parameters.filters);
    }
    if (call.of) {
        await mustBeOurs(r, version, call, call.path.exec(parts[2])[1]);
    }
    const query = Object.keys(parameters).map(name => `${name}=${parameters[name]}`).join('&');
    r.internalRedirect(`${call.quiet ? '/quiet' : '/ordinary'}${version}${parts[2]}${query ? `?${query}` : ''}`);
}

// Name -> value of the query string, each value still encoded.
function readParameters(call, path, query) {
    const found = {};
    query.split('&').filter(pair => pair).forEach(pair => {
        const name = pair.split('=')[0];
        const value = pair.slice(name.length + 1);
        const isKnown = call.parameters.includes(name) || call.parameters.includes(pair);
        if (!isKnown || name in found || !/^[A-Za-z0-9_.~%+*:\/,@-]*$/.test(value)) {
            throw refusal(`the parameter ${pair} of ${call.method} ${path} is not one of the pipeline's, or is`
                + ' given twice, or is not encoded');
        }
        found[name] = value;
    });
    return found;
}

// Filters of a list of containers, encoded; they must include the label of a deployment.
function onlyOurs(encoded) {
    const filters = parsed(decodeURIComponent((encoded || '').replace(/\+/g, ' ')) || '{}', 'filters');
    const labels = filters.label;
    if (!Array.isArray(labels) || !labels.some(label => typeof label === 'string' && label.startsWith(`${LABEL}=`))) {
        throw refusal(`containers can be listed only by the label ${LABEL}=...`);
    }
    return encodeURIComponent(JSON.stringify(filters));
}

// Reject a call for a container of others; the pipeline may also inspect Airflow's own container for its volumes.
async function mustBeOurs(r, version, call, id) {
    const container = await inspect(r, version, id);
    if ((container.Config.Labels || {})[LABEL]) {
        return;
    }
    if (call.of === 'ours or Airflow') {
        const folder = await dataFolder(r, version);
        if (container.Mounts.some(mount => mount.Source === folder)) {
            return;
        }
    }
    throw refusal(`container ${id} is not one of the pipeline's: it has no label ${LABEL}`);
}

async function inspect(r, version, id) {
    const found = await r.subrequest(`/ordinary${version}/containers/${id}/json`, {method: 'GET'});
    if (found.status !== 200) {
        const reported = /"message":"([^"]*)"/.exec(found.responseText || '');
        throw refusal(reported ? reported[1] : `the engine responded with ${found.status}`, found.status);
    }
    return JSON.parse(found.responseText);
}

// Path on the host of the volume mounted at DATA in the proxy's container.
async function dataFolder(r, version) {
    const own = /\/containers\/([0-9a-f]{64})\//.exec(fs.readFileSync('/proc/self/mountinfo', 'utf8'));
    const mounts = own ? (await inspect(r, version, own[1])).Mounts : [];
    const data = mounts.find(mount => mount.Destination === DATA);
    if (!data) {
        throw refusal(`nothing is mounted at ${DATA} in the proxy's container, so no folder may be mounted anywhere:`
            + ' mount the data volume there');
    }
    return data.Source;
}

async function create(r, version) {
    const wanted = withoutEmpty(parsed(r.requestText, 'the description of the container'));
    checkKeys(wanted, CONTAINER, '');
    wanted.HostConfig = withoutEmpty(wanted.HostConfig);
    checkKeys(wanted.HostConfig, HOST, 'HostConfig.');
    const folder = await dataFolder(r, version);
    (wanted.HostConfig.Mounts || []).forEach(mount => checkMount(mount, folder));
    const made = await r.subrequest(`/create${version}/containers/create`,
        {method: 'POST', body: JSON.stringify(wanted)});
    answer(r, made.status, made.responseText);
}

const isText = value => typeof value === 'string';
const isTruth = value => typeof value === 'boolean';
const isAmount = value => Number.isInteger(value) && value > 0;
const areTexts = value => Array.isArray(value) && value.every(isText);
const isMapOfTexts = value => isObject(value) && Object.keys(value).every(key => isText(value[key]));
const isNot = value => isTruth(value) && !value;
const is = only => value => JSON.stringify(value) === JSON.stringify(only);

// Allowed keys of a container's description: [check of the value, its description, whether it is required]
const CONTAINER = {
    Image: [isText, 'the name of an image', true],
    User: [isUnprivileged, 'a user and group that are not root and not in the group of the engine\'s socket'
        + (process.env.CONTAINER_USER ? `: ${process.env.CONTAINER_USER}` : ', as uid:gid'), true],
    Labels: [value => isMapOfTexts(value) && isText(value[LABEL]) && value[LABEL] !== '', `with a label ${LABEL}`, true],
    Env: [areTexts, 'a list of texts'],
    Cmd: [areTexts, 'a list of texts'],
    Entrypoint: [areTexts, 'a list of texts'],
    WorkingDir: [isText, 'a path'],
    StopSignal: [isText, 'a signal'],
    StopTimeout: [isAmount, 'seconds'],
    Tty: [isNot, 'false'],
    OpenStdin: [isNot, 'false'],
    StdinOnce: [isNot, 'false'],
    AttachStdin: [isTruth, 'true or false'],
    AttachStdout: [isTruth, 'true or false'],
    AttachStderr: [isTruth, 'true or false'],
    NetworkDisabled: [isTruth, 'true or false'],
    HostConfig: [isObject, 'an object', true],
};
const HOST = {
    NetworkMode: [is('none'), '"none"', true],
    ReadonlyRootfs: [is(true), 'true', true],
    CapDrop: [is(['ALL']), '["ALL"]', true],
    SecurityOpt: [is(['no-new-privileges']), '["no-new-privileges"]', true],
    Memory: [isAmount, 'a number of bytes', true],
    MemorySwap: [isAmount, 'a number of bytes', true],
    CpuPeriod: [isAmount, 'microseconds', true],
    CpuQuota: [isAmount, 'microseconds', true],
    PidsLimit: [isAmount, 'a number', true],
    LogConfig: [isCappedLog, 'the driver json-file with max-size below 100m and max-file below 10', true],
    DeviceRequests: [areGpus, 'one request of a number of GPUs, or of all (-1), with no other keys'],
    ShmSize: [isAmount, 'a number of bytes'],
    Tmpfs: [isMapOfTexts, 'options by path'],
    Init: [isTruth, 'true or false'],
    Mounts: [Array.isArray, 'a list'],
};

function checkKeys(given, rules, where) {
    Object.keys(given).forEach(key => {
        if (!Object.keys(rules).includes(key)) {
            throw refusal(`${where}${key} of a container is not one of the keys that the pipeline uses`);
        }
    });
    Object.keys(rules).forEach(key => {
        const rule = rules[key];
        if (key in given ? !rule[0](given[key]) : rule[2]) {
            const value = key in given ? JSON.stringify(given[key]) : 'missing';
            throw refusal(`${where}${key} of a container is ${value.slice(0, 200)}; it must be ${rule[1]}`);
        }
    });
}

// A log that cannot fill the host's disk, in the engine's files and nowhere else.
function isCappedLog(log) {
    return isObject(log) && Object.keys(log).sort().join() === 'Config,Type' && log.Type === 'json-file'
        && isMapOfTexts(log.Config) && Object.keys(log.Config).sort().join() === 'max-file,max-size'
        && /^[1-9][0-9]?m$/.test(log.Config['max-size']) && /^[1-9]$/.test(log.Config['max-file']);
}

// GPUs by their number only: no ids of devices, no other driver, no options.
function areGpus(requests) {
    if (!Array.isArray(requests) || requests.length !== 1 || !isObject(requests[0])) {
        return false;
    }
    const request = withoutEmpty(requests[0]);
    return Object.keys(request).sort().join() === 'Capabilities,Count' && is([['gpu']])(request.Capabilities)
        && (request.Count === -1 || isAmount(request.Count));
}

function isUnprivileged(user) {
    const parts = isText(user) && /^([1-9][0-9]*):([1-9][0-9]*)$/.exec(user);
    if (!parts || parts[2] === process.env.SOCKET_GROUP) {
        return false;
    }
    return !process.env.CONTAINER_USER || user === process.env.CONTAINER_USER;
}

function checkMount(mount, folder) {
    const known = ['Type', 'Source', 'Target', 'ReadOnly'];
    const source = mount.Source;
    const isPlain = isObject(mount) && mount.Type === 'bind' && Object.keys(mount).every(key => known.includes(key));
    const isInside = isText(source) && source.startsWith(`${folder}/`) && !source.split('/').includes('..');
    const isEmpty = source === '/dev/null' && mount.ReadOnly === true;
    const mayBeMounted = isInside || isEmpty;
    if (!isPlain || !isText(mount.Target) || !mayBeMounted) {
        throw refusal(`a container may mount folders and files of the data volume, ${folder}, and nothing else; not`
            + ` ${JSON.stringify(mount)}`);
    }
}

function isObject(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parsed(text, name) {
    let found;
    try {
        found = JSON.parse(text);
    } catch (error) {
        found = null;
    }
    if (!isObject(found)) {
        throw refusal(`${name} is not a JSON object`, 400);
    }
    return found;
}

// Remove empty values: null, an empty text, list or object.
function withoutEmpty(given) {
    const kept = {};
    Object.keys(given).filter(key => !isEmptyValue(given[key])).forEach(key => {
        kept[key] = given[key];
    });
    return kept;
}

function isEmptyValue(value) {
    if (value === null || value === '') {
        return true;
    }
    return typeof value === 'object' && !Object.keys(value).length;
}

function answer(r, status, body) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, body);
}

export default {decide};
