#!/usr/bin/env bash
# Creates a private link by calls of the HTTP API on the control socket, and shows the outcome.
#
#   examples/api.sh [SOCKET [CONSUMER_INTERFACE [PROVIDER_INTERFACE]]]
#
# Run it as root or as a member of the control socket's group. It needs curl and jq.
# It can be run again: a creation of an object that exists with the same fields is answered with 200.
# docs/openapi.json describes every route; the agent serves the same document at /openapi.json.
set -euo pipefail

socket=${1:-/run/plgw/plgw.sock}
consumer_interface=${2:-eth1}
provider_interface=${3:-eth2}

# Sends a request, and prints the answer: call METHOD PATH [BODY].
# For a status of 400 and above it fails, and prints the answer to standard error. That is a problem document
# (RFC 9457): "detail" says what is wrong and what to do.
call() {
    local arguments=(--silent --show-error --fail-with-body --max-time 30
        --unix-socket "$socket" --request "$1")
    if [[ $# -gt 2 ]]; then
        # A request that is repeated with the same key, such as after a time-out, is carried out once.
        local key
        key=$(</proc/sys/kernel/random/uuid)
        arguments+=(--header "content-type: application/json" --header "idempotency-key: $key"
            --data-binary "$3")
    fi
    # The request goes to the socket, so the host in the URL has no meaning.
    local answer
    if ! answer=$(curl "${arguments[@]}" "http://localhost$2"); then
        echo "$answer" >&2
        return 1
    fi
    echo "$answer"
}

# Creates an object, and prints its name: create PATH BODY.
create() {
    call POST "$1" "$2" | jq --raw-output --arg path "$1" '"created: \($path)/\(.name)"'
}

create /v1/tenants '{"name": "shop"}'
create /v1/tenants '{"name": "blue"}'

create /v1/tenants/shop/networks "$(jq --null-input --arg interface "$provider_interface" \
    '{name: "net", attachments: [{interface: $interface}]}')"
create /v1/tenants/blue/networks "$(jq --null-input --arg interface "$consumer_interface" \
    '{name: "net", attachments: [{interface: $interface}]}')"

create /v1/tenants/shop/services '{
    "name": "web",
    "network": "net",
    "resources": [{"ports": [{"port": 80}], "backends": [{"address": "10.1.0.10"}]}],
    "nat_addresses": ["10.1.0.64/28"],
    "visibility": ["blue"]
}'
create /v1/tenants/blue/endpoints '{
    "name": "web",
    "network": "net",
    "addresses": ["10.0.0.100"],
    "service": "shop/web",
    "request_message": "sent by api.sh"
}'

# The provider decides about the connection. Its number, the link id, and its version are in the list.
connections=/v1/tenants/shop/services/web/connections
connection=$(call GET "$connections" | jq '.items[] | select(.endpoint == "blue/web")')
state=$(jq --raw-output .state <<<"$connection")
if [[ $state != Approved ]]; then
    link_id=$(jq .link_id <<<"$connection")
    # With the version, a decision is refused with 409 if somebody else has decided in the meantime.
    decision=$(jq '{reason: "approved by api.sh", version}' <<<"$connection")
    connection=$(call POST "$connections/$link_id/approve" "$decision")
fi
jq --raw-output '"connection \(.link_id): \(.state), \(.reason)"' <<<"$connection"

echo "endpoint:"
call GET /v1/tenants/blue/endpoints/web | jq .status

echo "status:"
call GET /v1/status | jq .

# With follow=true the answer is a stream of server-sent events that does not end.
echo "events:"
call GET "/v1/events?limit=20" | jq --raw-output '.items[] | "\(.at) \(.action) \(.kind) \(.object) by \(.actor)"'
