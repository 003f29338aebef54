# SPDX-License-Identifier: MIT OR Apache-2.0
# Tests of the network interfaces mkN, with the kernels of spawn.sh. Kernel 1 uses smoltcp, kernel 2 has no network, and
# kernel 3 is a Linux.

# How many bytes are sent in each direction.
bytes=$(option bytes)

# ip_of ID: the address of a kernel. The address of this Linux in the same network ends with 1.
ip_of() {
	echo 10.77.$1.2
}

network() {
	step "network: an interface for each kernel" await 10 interfaces 1 2 3
	step "network: addresses" addresses 1 2 3 || return
	step "network: carriers to kernels 1 and 3, none to kernel 2" carriers || return
	step "network: ping kernel 1" pings 1 56 5
	step "network: ping kernel 1, frames of full length" pings 1 1472 5
	step "network: ping kernel 3" pings 3 56 5
	step "network: ping kernel 3, fragmented packets" pings 3 20000 5
	# The pings are not sent faster, because the socket of ping has room for only a few answers.
	step "network: ping kernel 3 100 times, 20 each second" pings 3 56 100 -i 0.05
	step "network: $bytes bytes to kernel 1" sent_to_1 $bytes
	step "network: $bytes bytes to kernel 3" sent_to_3 $bytes
	step "network: $bytes bytes from kernel 3" got_from_3 $bytes
	step "network: data with a small MTU" small_frames
	by_ssh
	step "network: the interface to kernel 3 is set down and up" down_and_up
	[ ! -x /bin/iperf3 ] || step "network: throughput and round trip, compared with veth" figures
	step "network: a transfer to kernel 3 begins" begin_transfer
	step "network: kernel 3 is killed" mk kill 3
	step "network: no carrier to kernel 3" await 5 has_no_carrier 3
	step "network: the connection of the transfer stays open" has_not_ended
	step "network: next life of kernel 3: carrier" next_life || return
	step "network: next life of kernel 3: the connection is reset" connection_reset
	step "network: next life of kernel 3: ping" pings 3 56 5
	step "network: next life of kernel 3: $bytes bytes" sent_to_3 $bytes
	step "network: kernel 1 is killed and restarted, ping" revive_1
	step "network: no frame was counted as an error" no_errors
	hostile
}

interfaces() {
	local id
	for id in "$@"; do
		[ -d /sys/class/net/mk$id ] || return
	done
}

addresses() {
	local id
	ip link set lo up || return
	for id in "$@"; do
		ip addr add 10.77.$id.1/24 dev mk$id && ip link set mk$id up || return
	done
}

has_carrier() {
	is "$(cat /sys/class/net/mk$1/carrier)" 1
}

has_no_carrier() {
	! has_carrier $1
}

# Kernels 1 and 3 get a carrier. Kernel 2 receives messages, but has no network, so there is no carrier.
carriers() {
	await 20 has_carrier 1 && await 20 has_carrier 3 && has_no_carrier 2 && ip addr | grep -A 3 mk
}

# pings ID BYTES COUNT [OPTION...]: sends COUNT pings of BYTES bytes. All must be answered.
pings() {
	local to=$(ip_of $1) size=$2 count=$3
	shift 3
	ping -s $size -c $count -W 5 "$@" $to | tail -n 2 > /tmp/ping
	cat /tmp/ping
	grep -q " 0% packet loss" /tmp/ping || { dropped; return 1; }
}

# Prints the counts of packets that the devices have dropped, and that raw sockets have dropped because they were full.
dropped() {
	grep . /sys/class/net/mk*/statistics/?x_dropped
	awk '{ print $NF }' /proc/net/raw
}

# data BYTES: prints BYTES bytes, rounded down to 64 KiB. The data is the file of busybox, repeated.
data() {
	while cat /bin/busybox; do
		:
	done 2> /dev/null | first $1
}

# first BYTES: copies the first BYTES bytes of its input, rounded down to 64 KiB. (`head` would read byte by byte.)
first() {
	dd bs=65536 iflag=fullblock count=$(($1 / 65536)) 2> /dev/null
}

# timed BYTES COMMAND...: runs the command, which transfers BYTES bytes, and prints the throughput.
timed() {
	local count=$1 before=$(cut -d' ' -f1 /proc/uptime | tr -d .) after
	shift
	"$@" || return
	after=$(cut -d' ' -f1 /proc/uptime | tr -d .)
	echo "$((count / 10486 / (after - before + 1))) MiB/s"
}

# sent_to_1 BYTES: sends data to kernel 1. Kernel 1 answers with the checksum of the data that it received.
sent_to_1() {
	data $1 > /tmp/data
	crc32 /tmp/data > /tmp/wanted
	timed $1 send_file 1 9 && is "$(cut -c1-8 /tmp/sum)" "$(cut -c1-8 /tmp/wanted)" || { cat /tmp/sum /tmp/wanted; return 1; }
	rm /tmp/data
}

send_file() {
	nc $(ip_of $1) $2 < /tmp/data > /tmp/sum
}

sent_to_3() {
	data $1 > /tmp/data
	md5sum < /tmp/data > /tmp/wanted
	timed $1 send_file 3 5001 && is "$(cat /tmp/sum)" "$(cat /tmp/wanted)" || { cat /tmp/sum /tmp/wanted; return 1; }
	rm /tmp/data
}

got_from_3() {
	data $1 | md5sum > /tmp/wanted
	timed $1 get_data 3 $1 && is "$(cat /tmp/sum)" "$(cat /tmp/wanted)" || { cat /tmp/sum /tmp/wanted; return 1; }
}

get_data() {
	nc $(ip_of $1) 5002 -e sh -c "dd bs=65536 iflag=fullblock count=$(($2 / 65536)) 2> /dev/null | md5sum > /tmp/sum"
}

# Sets this end of the interface down and up, while the other end stays up.
down_and_up() {
	ip link set mk3 down && ! ping -c 1 -W 1 $(ip_of 3) > /dev/null 2>&1 || return
	ip link set mk3 up && await 5 has_carrier 3 && pings 3 56 3
}

by_ssh() {
	[ -x /usr/bin/dbclient ] || { pass "network: ssh to kernel 3" "not run: this machine has no dropbear"; return; }
	step "network: ssh to kernel 3" ssh_to_3
	step "network: ping from kernel 3 to kernel 1" from_3 'ping -c 5 -W 5 10.77.1.2 | grep " 0% packet loss"'
	step "network: a file from kernel 3 to kernel 1, checksum" from_3 'sum=$(crc32 /bin/busybox | cut -c1-8); nc 10.77.1.2 9 < /bin/busybox | grep $sum'
}

# Runs a command over SSH. Then sends a file over SSH, and compares its checksum.
ssh_to_3() {
	local sum=$(md5sum < /bin/busybox)
	from_3 'echo $((6 * 7))' < /dev/null | grep 42 || return
	from_3 md5sum < /bin/busybox | grep "$sum"
}

# from_3 COMMAND: runs the command in the spawned Linux, over SSH.
from_3() {
	timeout 60 /usr/bin/dbclient -y root@$(ip_of 3) "$1" 2> /tmp/ssh || { cat /tmp/ssh; return 1; }
}

# Sends data with an MTU at which each frame fits into one message.
small_frames() {
	ip link set mk3 mtu 576 && sent_to_3 983040
	local done=$?
	ip link set mk3 mtu 1500
	return $done
}

# Begins a transfer in the background. When the kernel at the other end is killed, the connection stays open, as with a
# machine that was switched off. The program writes its result to a file, because it runs longer than this step.
begin_transfer() {
	local before=$(sent_on mk3)
	rm -f /tmp/nc.ended
	(
		data 1048576000 | nc $(ip_of 3) 5001
		echo $? > /tmp/nc.ended
	) > /dev/null 2> /tmp/nc &
	sleep 1
	echo "$(($(sent_on mk3) - before)) bytes in one second"
	[ $(sent_on mk3) -gt $((before + 100000)) ]
}

sent_on() {
	cat /sys/class/net/$1/statistics/tx_bytes
}

has_ended() {
	[ -s /tmp/nc.ended ]
}

has_not_ended() {
	! has_ended
}

next_life() {
	start 3 && await $boot is_up 3 && await 20 has_carrier 3 && tell_life 3
}

# The data is sent again to the next life, which does not know the connection, and resets it.
connection_reset() {
	await 60 has_ended || { echo "the program did not end within 60 s"; return 1; }
	! is 0 $(cat /tmp/nc.ended) || { echo "the program ended without an error"; return 1; }
	cat /tmp/nc
}

revive_1() {
	mk kill 1 || return
	await 5 has_no_carrier 1 || { echo "there is a carrier, although the kernel was killed"; return 1; }
	start 1 || return
	await 20 has_carrier 1 || { echo "there was no carrier within 20 s"; return 1; }
	pings 1 56 5 && tell_life 1
}

no_errors() {
	local id of
	for id in 1 3; do
		for of in rx_errors rx_frame_errors rx_dropped tx_errors; do
			echo "mk$id $of $(cat /sys/class/net/mk$id/statistics/$of)"
		done
	done > /tmp/errors
	cat /tmp/errors
	! grep -E '(rx_errors|rx_frame_errors) [1-9]' /tmp/errors
}

# Measures the throughput with iperf3, and the round trip of a ping. Compares both with a pair of veth devices in this Linux.
figures() {
	local of
	veth_up || return
	await 10 iperf $(ip_of 3) 1 > /dev/null
	for of in "mk3 $(ip_of 3)" "veth 10.78.0.2"; do
		set -- $of
		figure $1 $2 || { veth_down; return 1; }
	done
	veth_down
	awk '{ of[$1, $2] = $3 } END {
		printf "to: %d of %d Mbit/s, ratio %.2f; ", of["to", "mk3"], of["to", "veth"], of["to", "mk3"] / of["to", "veth"]
		printf "from: %d of %d Mbit/s, ratio %.2f; ", of["from", "mk3"], of["from", "veth"], of["from", "mk3"] / of["from", "veth"]
		printf "ping: %.3f ms, veth %.3f ms, ratio %.2f\n", of["ping", "mk3"], of["ping", "veth"], of["ping", "mk3"] / of["ping", "veth"]
	}' /tmp/figures
}

# figure NAME ADDRESS: measures the network to ADDRESS, and stores the results under NAME.
figure() {
	echo "to $1 $(iperf $2 3)" >> /tmp/figures
	echo "from $1 $(iperf $2 3 -R)" >> /tmp/figures
	echo "ping $1 $(trip $2)" >> /tmp/figures
}

# iperf ADDRESS SECONDS [OPTION]: prints Mbit/s, as the receiver measured it.
iperf() {
	local to=$1 seconds=$2
	shift 2
	iperf3 -c $to -t $seconds -f m "$@" | awk '/receiver/ { for (n = 1; n < NF; n++) if ($(n + 1) == "Mbits/sec") { print $n; found = 1 } } END { exit !found }'
}

# trip ADDRESS: prints the average round trip of a ping in milliseconds.
trip() {
	ping -c 200 -i 0.01 $1 | awk -F/ '/round-trip/ { print $4 }'
}

veth_up() {
	rm -f /tmp/figures
	# Linux chooses the name of the other end of the pair.
	ip link add pair type veth || return
	unshare -n sh -c 'ip link set lo up; until ip addr add 10.78.0.2/24 dev veth0 2> /dev/null; do sleep 0.1; done; ip link set veth0 up; exec iperf3 -s' > /dev/null 2>&1 &
	veth_pid=$!
	sleep 1
	ip link set veth0 netns $veth_pid && ip addr add 10.78.0.1/24 dev pair && ip link set pair up && sleep 2
}

veth_down() {
	kill $veth_pid
	ip link del pair
}
