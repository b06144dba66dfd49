#!/usr/bin/env bash
# Run a command over a slow network, on one machine and as root:
#
#   jobs/local/shaped_network.sh RATE COMMAND…
#   jobs/local/shaped_network.sh 100mbit mpiexec -n 2 python -m acidmpi.bench iteration
#
# COMMAND gets a network namespace of its own, with nothing in it but a loopback interface
# whose queue passes RATE (as `tc` writes it: 1gbit, 100mbit) by a token bucket. Open MPI,
# MPICH and gloo are told to use TCP over it rather than shared memory.
#
# RATE holds for all traffic of all ranks in both directions TOGETHER, as on one shared
# cable: two ranks that send to each other at once get half of it each. On n machines, each
# with a duplex link of rate R, a ring moves as fast as here with RATE = n R.
#
# The namespace is gone when its last process is, however that ends, and nothing outside of
# it is changed. Status: that of COMMAND; 77 where this is not permitted; 2 for a mistake.
set -euo pipefail

say() { printf 'shaped_network: %s\n' "$*" >&2; }

if [ $# -lt 2 ]; then
    say "usage: $0 RATE COMMAND…, for example: $0 100mbit mpiexec -n 2 …"
    exit 2
fi
rate=$1
shift

for tool in unshare ip tc; do
    if ! command -v "$tool" >/dev/null; then
        say "needs $tool (packages iproute2 and util-linux)"
        exit 77
    fi
done
if ! unshare --net true 2>/dev/null; then
    say "needs the right to make a network namespace: run it as root, with CAP_SYS_ADMIN"
    exit 77
fi
if ! unshare --net bash -c "ip link set lo up && tc qdisc add dev lo root tbf \
    rate 1mbit burst 256kb latency 50ms" 2>/dev/null; then
    say "needs the right to shape a network, CAP_NET_ADMIN, and a kernel with tbf"
    exit 77
fi

# Open MPI
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
# MPICH
export MPIR_CVAR_NOLOCAL=1 MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER=tcp FI_TCP_IFACE=lo
# torch
export GLOO_SOCKET_IFNAME=lo

# A frame of 1500 bytes makes headers weigh what they weigh on Ethernet.
exec unshare --net bash -c '
    rate=$1
    shift
    ip link set lo mtu 1500 up
    if ! tc qdisc add dev lo root tbf rate "$rate" burst 256kb latency 50ms; then
        printf "shaped_network: RATE must be a rate as tc writes it, got %s\n" "$rate" >&2
        exit 2
    fi
    exec "$@"
' shaped_network "$rate" "$@"
