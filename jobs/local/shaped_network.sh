#!/usr/bin/env bash
# Run a command over a slow network, on one machine and as root:
#
#   jobs/local/shaped_network.sh RATE COMMAND…
#   jobs/local/shaped_network.sh --links N RATE PROGRAM…
#
#   jobs/local/shaped_network.sh 100mbit mpiexec -n 2 python -m acidmpi.bench iteration
#   jobs/local/shaped_network.sh --links 2 100mbit python -m acidmpi.bench iteration
#
# Both work in a network namespace of their own, whose queues pass RATE (as `tc` writes it:
# 1gbit, 100mbit) by a token bucket, and have Open MPI, MPICH and gloo use TCP over it
# rather than shared memory.
#
# The first is one shared cable: RATE is for all traffic of all ranks in both directions
# TOGETHER. Two ranks that send to each other at once get half of it each.
#
# The second starts `mpiexec -n N PROGRAM…`, each rank in namespaces of its own with a link
# to a switch and a host name: for the program they are N machines. RATE is what each rank
# may SEND; it receives as fast as others send.
#
# The namespaces are gone when the last process in them is, however that ends, and nothing
# outside of them is changed. Status: that of COMMAND; 77 where this is not permitted; 2 for
# a mistake.
set -euo pipefail

say() { printf 'shaped_network: %s\n' "$*" >&2; }

usage() {
    say "usage: $0 [--links N] RATE COMMAND…, for example: $0 100mbit mpiexec -n 2 …"
    exit 2
}

links=0
if [ "${1:-}" = --links ]; then
    links=${2:-}
    [[ "$links" =~ ^[1-9][0-9]?$ ]] || usage
    shift 2
fi
[ $# -ge 2 ] || usage

for tool in unshare nsenter ip tc; do
    if ! command -v "$tool" >/dev/null; then
        say "needs $tool (packages iproute2 and util-linux)"
        exit 77
    fi
done
if ! unshare --net --mount true 2>/dev/null; then
    say "needs the right to make a network namespace: run it as root, with CAP_SYS_ADMIN"
    exit 77
fi
if ! unshare --net bash -c "ip link set lo up && tc qdisc add dev lo root tbf \
    rate 1mbit burst 256kb latency 50ms" 2>/dev/null; then
    say "needs the right to shape a network, CAP_NET_ADMIN, and a kernel with tbf"
    exit 77
fi

use_interface() {
    # Open MPI
    export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=$1
    # MPICH
    export MPIR_CVAR_NOLOCAL=1 MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER=tcp FI_TCP_IFACE=$1
    # torch
    export GLOO_SOCKET_IFNAME=$1
}

# Runs inside the namespace. A frame of 1500 bytes makes headers weigh what they weigh on
# Ethernet.
shape() {
    if ! tc "${@:2}" root tbf rate "$1" burst 256kb latency 50ms; then
        say "RATE must be a rate as tc writes it, got $1"
        exit 2
    fi
}

one_cable() {
    local rate=$1
    shift
    ip link set lo mtu 1500 up
    shape "$rate" qdisc add dev lo
    exec "$@"
}

a_link_each() {
    local links=$1 rate=$2 rank
    shift 2
    ip link set lo up
    # Names of namespaces are files: they go with this one's own view of the file system.
    mkdir -p /run/netns
    mount -t tmpfs shaped_network /run/netns
    ip link add hub type bridge
    ip address add 10.99.0.254/24 dev hub
    ip link set hub up
    for ((rank = 0; rank < links; rank++)); do
        ip netns add "rank$rank"
        ip link add "port$rank" type veth peer name eth0 netns "rank$rank"
        ip link set "port$rank" master hub up
        ip -n "rank$rank" address add "10.99.0.$((rank + 1))/24" dev eth0
        ip -n "rank$rank" link set lo up
        ip -n "rank$rank" link set eth0 up
        shape "$rate" -n "rank$rank" qdisc add dev eth0
    done
    # Open MPI's ranks ask mpiexec for each other's addresses, over the switch.
    export PMIX_MCA_ptl_base_if_include=hub
    # shellcheck disable=SC2016
    exec mpiexec -n "$links" bash -c '
        export MACHINE="rank${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
        exec nsenter --net="/run/netns/$MACHINE" unshare --uts bash -c "
            echo \$MACHINE > /proc/sys/kernel/hostname
            exec \"\$@\"
        " "$MACHINE" "$@"
    ' rank "$@"
}

if [ "$links" -eq 0 ]; then
    use_interface lo
    inside=(one_cable)
else
    use_interface eth0
    inside=(a_link_each "$links")
fi
export -f say shape one_cable a_link_each
exec unshare --net --mount bash -euc '"$@"' shaped_network "${inside[@]}" "$@"
